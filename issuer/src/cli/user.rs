//! `user`: users, one by one or a file of them.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::{CliError, PAGE, print};
use crate::admin::{Actor, Condition, ImportMode, ImportReport, UserOrder, UserPatch};
use crate::app::App;
use crate::password::{PASSWORD_BYTES_MAX, Password};
use crate::routes::admin::user::{SessionAnswer, UserAnswer};

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user, whose password is read from standard input, and print the user's id
    Add(AddArgs),
    /// List the users by name, a line of JSON each
    List,
    /// Print a user as JSON
    Show(UserName),
    /// Change a user
    Set(SetArgs),
    /// Refuse a user's logins, and end every session
    Disable(UserName),
    /// Let a user log in again
    Enable(UserName),
    /// Delete a user, and end every session
    Delete(UserName),
    /// Set a user's password, which is read from standard input, and end every session
    Password(UserName),
    /// Import users from a file of JSON lines. Nothing is imported unless every line can be
    Import(ImportArgs),
    /// List a user's sessions, a line of JSON each
    Sessions(UserName),
    /// End a user's sessions, all of them or one
    EndSessions {
        /// The name to log in with
        name: String,
        /// Only the session of this id
        #[arg(long, value_name = "ID")]
        session: Option<String>,
    },
    /// Forget a user's failed logins
    Unlock(UserName),
}

#[derive(Debug, Args)]
pub(super) struct UserName {
    /// The name to log in with
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The name to log in with
    name: String,
    /// Read the password from standard input; there is no other way to give it
    #[arg(long)]
    password_stdin: bool,
    /// The plan that sets the user's limits
    #[arg(long)]
    plan: Option<String>,
    /// A role; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope that the user may ask for; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The customer that the user belongs to
    #[arg(long)]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The name to log in with
    name: String,
    /// Another plan
    #[arg(long)]
    plan: Option<String>,
    /// The roles from now on; may be given several times
    #[arg(long = "role", value_name = "ROLE", conflicts_with = "no_roles")]
    roles: Vec<String>,
    /// No roles from now on
    #[arg(long)]
    no_roles: bool,
    /// The scopes from now on; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "no_scopes")]
    scopes: Vec<String>,
    /// No scopes from now on
    #[arg(long)]
    no_scopes: bool,
    /// Another customer
    #[arg(long, conflicts_with = "no_tenant")]
    tenant: Option<String>,
    /// No customer from now on
    #[arg(long)]
    no_tenant: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file
    file: PathBuf,
    /// Only check the lines
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(
    app: &App,
    command: UserCommand,
    input: &mut impl Read,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let actor = Actor::command_line();
    let any = Condition::Any;
    match command {
        UserCommand::Add(AddArgs { name, password_stdin: _, plan, roles, scopes, tenant }) => {
            let password = read_password(input)?;
            let order = UserOrder { username: name, password, plan, roles, scopes, tenant };
            let added = app.add_user(order, &actor).await?;
            Ok(writeln!(output, "{}", added.user.id)?)
        }
        UserCommand::List => list(app, output).await,
        UserCommand::Show(UserName { name }) => {
            print(output, &UserAnswer::from(app.user_named(&name).await?))
        }
        UserCommand::Set(arguments) => {
            let (name, patch) = patch(arguments);
            set(app, &name, patch, output).await
        }
        UserCommand::Disable(UserName { name }) => {
            set(app, &name, UserPatch { disabled: Some(true), ..UserPatch::default() }, output).await
        }
        UserCommand::Enable(UserName { name }) => {
            set(app, &name, UserPatch { disabled: Some(false), ..UserPatch::default() }, output).await
        }
        UserCommand::Delete(UserName { name }) => {
            let known = app.user_named(&name).await?;
            app.delete_user(&known.user.id, &any, &actor).await?;
            Ok(writeln!(output, "deleted")?)
        }
        UserCommand::Password(UserName { name }) => {
            let password = read_password(input)?;
            let known = app.user_named(&name).await?;
            app.set_password(&known.user.id, password, &any, &actor).await?;
            Ok(writeln!(output, "changed")?)
        }
        UserCommand::Import(ImportArgs { file, dry_run }) => {
            let mode = if dry_run { ImportMode::DryRun } else { ImportMode::Import };
            import(app, &file, mode, output).await
        }
        UserCommand::Sessions(UserName { name }) => {
            let known = app.user_named(&name).await?;
            for session in app.sessions_of_user(&known.user.id).await? {
                print(output, &SessionAnswer::from(session))?;
            }
            Ok(())
        }
        UserCommand::EndSessions { name, session } => {
            let known = app.user_named(&name).await?;
            match session {
                Some(session) => app.end_user_session(&known.user.id, &session, &actor).await?,
                None => app.end_user_sessions(&known.user.id, &actor).await?,
            }
            Ok(writeln!(output, "ended")?)
        }
        UserCommand::Unlock(UserName { name }) => {
            let known = app.user_named(&name).await?;
            app.unlock_user(&known.user.id, &actor).await?;
            Ok(writeln!(output, "unlocked")?)
        }
    }
}

async fn list(app: &App, output: &mut impl Write) -> Result<(), CliError> {
    let mut after = String::new();
    loop {
        let (users, next) = app.store.users(&after, PAGE).await?;
        for user in users {
            print(output, &UserAnswer::from(user))?;
        }
        match next {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

fn patch(arguments: SetArgs) -> (String, UserPatch) {
    let SetArgs { name, plan, roles, no_roles, scopes, no_scopes, tenant, no_tenant } = arguments;
    let list = |list: Vec<String>, none: bool| (none || !list.is_empty()).then_some(list);
    let tenant = if no_tenant { Some(None) } else { tenant.map(Some) };
    let (roles, scopes) = (list(roles, no_roles), list(scopes, no_scopes));
    (name, UserPatch { plan, roles, scopes, tenant, disabled: None })
}

async fn set(app: &App, name: &str, patch: UserPatch, output: &mut impl Write) -> Result<(), CliError> {
    let known = app.user_named(name).await?;
    let changed = app.change_user(&known.user.id, &patch, &Condition::Any, &Actor::command_line()).await?;
    print(output, &UserAnswer::from(changed))
}

async fn import(app: &App, file: &Path, mode: ImportMode, output: &mut impl Write) -> Result<(), CliError> {
    let open = || File::open(file).map(BufReader::new);
    let report = app.import_users(open, mode, &Actor::command_line()).await?;
    let report = report.map_err(|error| CliError::File { path: file.to_owned(), error })?;
    let ImportReport { added, existing, existing_lines, problems, bad } = report;
    for problem in problems {
        writeln!(output, "{problem}")?;
    }
    for line in existing_lines {
        writeln!(output, "line {line}: username: exists already, left as it is")?;
    }
    let verb = if mode == ImportMode::DryRun { "would be added" } else { "added" };
    writeln!(output, "{added} {verb}, {existing} exist already, {bad} bad")?;
    if bad == 0 { Ok(()) } else { Err(CliError::Import(bad)) }
}

/// All of the input but one line end, which a terminal or `echo` adds.
fn read_password(input: &mut impl Read) -> Result<Password, CliError> {
    let limit = PASSWORD_BYTES_MAX + 3;
    let mut text = Zeroizing::new(String::with_capacity(limit));
    input.take(limit as u64).read_to_string(&mut text)?;
    let trimmed =
        text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text);
    Ok(Password::new(Zeroizing::new(trimmed.to_owned()))?)
}
