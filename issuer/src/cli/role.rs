//! `role`: roles and what they permit.

use std::io::Write;

use clap::{Args, Subcommand};

use super::{CliError, PAGE, print};
use crate::admin::{Actor, Condition, RolePatch};
use crate::app::App;
use crate::routes::admin::role::answer;
use crate::store::Role;

#[derive(Debug, Subcommand)]
pub(super) enum RoleCommand {
    /// Add a role
    Add(RoleArgs),
    /// List the roles by name, a line of JSON each
    List,
    /// Print a role as JSON
    Show(RoleName),
    /// Change a role. What is not given stays
    Set(SetArgs),
    /// Delete a role
    Delete(RoleName),
}

#[derive(Debug, Args)]
pub(super) struct RoleName {
    /// The role's name
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct RoleArgs {
    /// The role's name
    name: String,
    /// A scope that who has the role may ask for; may be given several times
    #[arg(long = "permission", value_name = "SCOPE")]
    permissions: Vec<String>,
    /// What the role is for
    #[arg(long, default_value = "")]
    description: String,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The role's name
    name: String,
    /// The scopes from now on; may be given several times
    #[arg(long = "permission", value_name = "SCOPE", conflicts_with = "no_permissions")]
    permissions: Vec<String>,
    /// No scopes from now on
    #[arg(long)]
    no_permissions: bool,
    /// What the role is for
    #[arg(long)]
    description: Option<String>,
}

impl From<RoleArgs> for Role {
    fn from(arguments: RoleArgs) -> Self {
        let RoleArgs { name, permissions, description } = arguments;
        Self { name, permissions, description }
    }
}

pub(super) async fn run(app: &App, command: RoleCommand, output: &mut impl Write) -> Result<(), CliError> {
    let actor = Actor::command_line();
    match command {
        RoleCommand::Add(arguments) => {
            let role = Role::from(arguments);
            let revision = app.add_role(&role, &actor).await?;
            print(output, &answer((role, revision)))
        }
        RoleCommand::List => {
            let mut after = String::new();
            loop {
                let roles = app.store.roles(&after, PAGE).await?;
                let Some((last, _)) = roles.last() else { return Ok(()) };
                after.clone_from(&last.name);
                for role in roles {
                    print(output, &answer(role))?;
                }
            }
        }
        RoleCommand::Set(arguments) => {
            let SetArgs { name, permissions, no_permissions, description } = arguments;
            let permissions = (no_permissions || !permissions.is_empty()).then_some(permissions);
            let patch = RolePatch { permissions, description };
            print(output, &answer(app.patch_role(&name, &patch, &actor).await?))
        }
        RoleCommand::Show(RoleName { name }) => print(output, &answer(app.role(&name).await?)),
        RoleCommand::Delete(RoleName { name }) => {
            app.delete_role(&name, &Condition::Any, &actor).await?;
            Ok(writeln!(output, "deleted")?)
        }
    }
}
