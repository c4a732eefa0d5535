//! Decides what an import of users does: nothing at all unless every line can be imported, and never over a user there is.

use std::collections::BTreeSet;
use std::io::{self, BufRead};

use super::{Actor, Entry, OrderError};
use crate::app::App;
use crate::audit::Action;
use crate::credential::new_id;
use crate::import::{ImportError, ImportLine, ImportLines, ImportProblem};
use crate::store::{NewUser, StoreError, User};

/// How many bad lines are reported, and how many lines whose user exists.
const REPORTED_MAX: usize = 1000;

/// Whether an import is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportMode {
    /// It is.
    Import,
    /// Only the lines are checked.
    DryRun,
}

/// How an import ended.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// How many users were added, or would be.
    pub added: u64,
    /// How many were there already, and were left as they are.
    pub existing: u64,
    /// The first lines of those.
    pub existing_lines: Vec<u64>,
    /// What is wrong with the first bad lines. If there is one, nothing was imported.
    pub problems: Vec<ImportError>,
    /// How many bad lines there are.
    pub bad: u64,
}

/// What is known to exist, so that it is looked up once for all lines.
#[derive(Debug, Default)]
struct Known {
    roles: BTreeSet<String>,
    tenants: BTreeSet<String>,
}

impl App {
    /// Imports users. `open` gives the lines, and is called twice: once to check all of them, once to import. What was cut
    /// short is taken up by importing the same again.
    ///
    /// # Errors
    /// [`OrderError`] when the store fails, or what `open` failed with.
    pub async fn import_users<R: BufRead>(
        &self,
        open: impl Fn() -> io::Result<R>,
        mode: ImportMode,
        actor: &Actor,
    ) -> Result<io::Result<ImportReport>, OrderError> {
        let mut report = ImportReport::default();
        let mut known = Known::default();
        let lines = match open() {
            Ok(input) => ImportLines::new(input),
            Err(error) => return Ok(Err(error)),
        };
        for line in lines {
            let checked = match line {
                Ok(line) => self.check_line(&line, &mut known).await?.map(|()| line),
                Err(error) => Err(error),
            };
            match checked {
                Ok(line) if mode == ImportMode::DryRun => self.look_at(&line, &mut report).await?,
                Ok(_) => {}
                Err(error) => {
                    report.bad += 1;
                    if report.problems.len() < REPORTED_MAX {
                        report.problems.push(error);
                    }
                }
            }
        }
        if mode == ImportMode::DryRun || report.bad > 0 {
            return Ok(Ok(report));
        }
        let lines = match open() {
            Ok(input) => ImportLines::new(input),
            Err(error) => return Ok(Err(error)),
        };
        for line in lines {
            match line {
                Ok(line) => self.import_line(line, &mut report, actor).await?,
                // The file changed since it was checked.
                Err(error) => {
                    report.bad += 1;
                    report.problems.push(error);
                    break;
                }
            }
        }
        Ok(Ok(report))
    }

    async fn check_line(
        &self,
        line: &ImportLine,
        known: &mut Known,
    ) -> Result<Result<(), ImportError>, OrderError> {
        let refused = |rule: OrderError| ImportError { line: line.line, problem: ImportProblem::Rule(rule) };
        if let Some(plan) = &line.plan
            && let Err(rule) = self.known_plan(plan)
        {
            return Ok(Err(refused(rule)));
        }
        for role in &line.roles {
            if !known.roles.contains(role) {
                if self.store.role(role).await?.is_none() {
                    return Ok(Err(refused(OrderError::Unknown("roles"))));
                }
                known.roles.insert(role.clone());
            }
        }
        if let Some(tenant) = &line.tenant
            && !known.tenants.contains(tenant)
        {
            if self.store.tenant(tenant).await?.is_none() {
                return Ok(Err(refused(OrderError::Unknown("tenant"))));
            }
            known.tenants.insert(tenant.clone());
        }
        Ok(Ok(()))
    }

    async fn look_at(&self, line: &ImportLine, report: &mut ImportReport) -> Result<(), OrderError> {
        match self.store.user_named(&line.username).await? {
            Some(_) => report.exists(line.line),
            None => report.added += 1,
        }
        Ok(())
    }

    async fn import_line(
        &self,
        line: ImportLine,
        report: &mut ImportReport,
        actor: &Actor,
    ) -> Result<(), OrderError> {
        let ImportLine { line, username, password_hash, id, plan, roles, scopes, tenant, disabled } = line;
        if self.store.user_named(&username).await?.is_some() {
            report.exists(line);
            return Ok(());
        }
        let id = match id {
            Some(id) => id,
            None => new_id("u_", &*self.host)?,
        };
        let plan = plan.unwrap_or_else(|| self.plans.default_name().to_owned());
        let entry = Entry { actor, action: Action::UserImport, target: &id, detail: username.clone() };
        let user = User { id: id.clone(), username, plan, roles, scopes, tenant, disabled };
        let new = NewUser { user, password_hash: password_hash.as_str().to_owned() };
        let adding = async {
            // Both are `sub` of tokens, and one must not be taken for the other (RFC 9068 section 5).
            if self.store.client(&id).await?.is_some() {
                return Err(StoreError::Exists.into());
            }
            Ok(self.store.add_user(&new, self.host.seconds()).await?)
        };
        match self.recorded(entry, adding).await {
            Ok(()) => report.added += 1,
            // Its id is another user's, or its name was taken a moment ago by what has not ended yet.
            Err(OrderError::Store(StoreError::Exists)) => {
                report.bad += 1;
                let problem = ImportProblem::Rule(OrderError::Store(StoreError::Exists));
                report.problems.push(ImportError { line, problem });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl ImportReport {
    fn exists(&mut self, line: u64) {
        self.existing += 1;
        if self.existing_lines.len() < REPORTED_MAX {
            self.existing_lines.push(line);
        }
    }
}
