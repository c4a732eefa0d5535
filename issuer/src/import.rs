//! Decides what a line of a user import says: JSON with known members, every one of them checked before any is stored.
//!
//! *What comes in:* a file that another system wrote. *What goes out:* users with hashes that can be checked, or the
//! number of a line and the name of a member. *What an attacker gains if this is wrong:* a hash that stalls logins, a user
//! with a name that no rule allows, or a hash in a log.

use std::io::{self, BufRead, Read};

use serde::Deserialize;

use crate::admin::{OrderError, named, tokens};
use crate::password::{StoredHash, StoredHashError};

/// The longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// A user to be imported.
#[derive(Debug)]
pub struct ImportLine {
    /// The number of its line; the first is 1.
    pub line: u64,
    /// By what the user logs in.
    pub username: String,
    /// What the password is checked with until the first login.
    pub password_hash: StoredHash,
    /// `sub` of the tokens; a new one when `None`.
    pub id: Option<String>,
    /// Which limit applies; the default one when `None`. Whether there is such a plan is not checked here.
    pub plan: Option<String>,
    /// What the user is.
    pub roles: Vec<String>,
    /// What the user may ask for.
    pub scopes: Vec<String>,
    /// The customer the user belongs to.
    pub tenant: Option<String>,
    /// Whether logins are refused.
    pub disabled: bool,
}

/// Why a line is refused. It never repeats what stands in the line.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ImportError {
    /// The number of the line; the first is 1.
    pub line: u64,
    /// What is wrong with it.
    #[source]
    pub problem: ImportProblem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub enum ImportProblem {
    /// It could not be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is too long.
    #[error("is longer than {LINE_BYTES_MAX} bytes")]
    Length,
    /// It is not a JSON object.
    #[error("is not a JSON object")]
    Json,
    /// It has a member that is not known.
    #[error("has a member that is not known")]
    Unknown,
    /// A member is missing.
    #[error("{0}: is missing")]
    Missing(&'static str),
    /// A member is there twice.
    #[error("{0}: is there twice")]
    Twice(&'static str),
    /// A member has the wrong type.
    #[error("{0}: has the wrong type")]
    Type(&'static str),
    /// A member breaks the rules for what operators order.
    #[error(transparent)]
    Rule(#[from] OrderError),
    /// The hash is refused.
    #[error("password_hash: {0}")]
    Hash(#[from] StoredHashError),
}

const USERNAME: &str = "username";
const PASSWORD_HASH: &str = "password_hash";
const MEMBERS: [&str; 8] = [USERNAME, PASSWORD_HASH, "id", "plan", "roles", "scopes", "tenant", "disabled"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    username: Option<String>,
    password_hash: Option<String>,
    id: Option<String>,
    plan: Option<String>,
    roles: Option<Vec<String>>,
    scopes: Option<Vec<String>>,
    tenant: Option<String>,
    disabled: Option<bool>,
}

impl ImportLine {
    /// Reads the line of this number.
    ///
    /// # Errors
    /// [`ImportError`].
    pub fn parse(line: u64, bytes: &[u8]) -> Result<Self, ImportError> {
        Self::read(line, bytes).map_err(|problem| ImportError { line, problem })
    }

    fn read(line: u64, bytes: &[u8]) -> Result<Self, ImportProblem> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(ImportProblem::Length);
        }
        let Document { username, password_hash, id, plan, roles, scopes, tenant, disabled } =
            document(bytes)?;
        let username = username.ok_or(ImportProblem::Missing(USERNAME))?;
        let password_hash = password_hash.ok_or(ImportProblem::Missing(PASSWORD_HASH))?;
        let (roles, scopes) = (roles.unwrap_or_default(), scopes.unwrap_or_default());
        named(USERNAME, &username)?;
        for (what, name) in [("id", &id), ("plan", &plan), ("tenant", &tenant)] {
            if let Some(name) = name {
                named(what, name)?;
            }
        }
        tokens("roles", &roles)?;
        tokens("scopes", &scopes)?;
        let password_hash = StoredHash::parse(&password_hash)?;
        let disabled = disabled.unwrap_or(false);
        Ok(Self { line, username, password_hash, id, plan, roles, scopes, tenant, disabled })
    }
}

fn document(bytes: &[u8]) -> Result<Document, ImportProblem> {
    // Structs can be written as arrays too; here they cannot.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(ImportProblem::Json);
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let document = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let known = |name: &str| MEMBERS.into_iter().find(|member| *member == name);
        let inner = error.into_inner();
        if !inner.is_data() {
            return ImportProblem::Json;
        }
        // Of the problem's text only the name of a known member is used: the rest may repeat what stands in the line.
        let problem = inner.to_string();
        if problem.starts_with("unknown field ") {
            return ImportProblem::Unknown;
        }
        let twice = problem.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next());
        if let Some(member) = twice.and_then(known) {
            return ImportProblem::Twice(member);
        }
        let member = path.split(['.', '[']).next().and_then(known);
        member.map_or(ImportProblem::Json, ImportProblem::Type)
    })?;
    json.end().map_err(|_| ImportProblem::Json)?;
    Ok(document)
}

/// The lines of an import, one at a time, whatever their number. Empty ones are passed over. After a line that is refused
/// the next one follows; after a failure to read, nothing.
#[derive(Debug)]
pub struct ImportLines<R> {
    input: R,
    line: u64,
    state: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    More,
    Ended,
}

impl<R: BufRead> ImportLines<R> {
    /// The lines of this input.
    pub fn new(input: R) -> Self {
        Self { input, line: 0, state: Reading::More }
    }

    /// The next line without its end; `None` at the end of the input.
    fn next_bytes(&mut self) -> Result<Option<Vec<u8>>, ImportProblem> {
        let mut bytes = Vec::new();
        // One more than may be, and the end of the line.
        let limit = LINE_BYTES_MAX as u64 + 2;
        self.input.by_ref().take(limit).read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            self.state = Reading::Ended;
            return Ok(None);
        }
        self.line = self.line.saturating_add(1);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        } else if bytes.len() > LINE_BYTES_MAX {
            self.input.skip_until(b'\n')?;
        }
        if bytes.len() > LINE_BYTES_MAX { Err(ImportProblem::Length) } else { Ok(Some(bytes)) }
    }
}

impl<R: BufRead> Iterator for ImportLines<R> {
    type Item = Result<ImportLine, ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.state == Reading::More {
            match self.next_bytes() {
                Ok(None) => {}
                Ok(Some(bytes)) if bytes.trim_ascii().is_empty() => {}
                Ok(Some(bytes)) => return Some(ImportLine::parse(self.line, &bytes)),
                Err(problem) => {
                    if let ImportProblem::Read(_) = &problem {
                        self.state = Reading::Ended;
                    }
                    return Some(Err(ImportError { line: self.line, problem }));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
