//! `tenant`: the customers that users and clients belong to.

use std::io::Write;

use clap::Subcommand;

use super::{CliError, PAGE, print};
use crate::admin::{Actor, Condition, TenantPatch};
use crate::app::App;
use crate::routes::admin::tenant::answer;
use crate::store::Tenant;

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Add a tenant
    Add {
        /// The tenant's id
        id: String,
        /// What people call it
        #[arg(long)]
        name: Option<String>,
    },
    /// List the tenants by id, a line of JSON each
    List,
    /// Print a tenant as JSON
    Show {
        /// The tenant's id
        id: String,
    },
    /// Call a tenant otherwise
    Set {
        /// The tenant's id
        id: String,
        /// What people call it from now on
        #[arg(long)]
        name: String,
    },
    /// Refuse a tenant's users and clients, and cut off what they have
    Disable {
        /// The tenant's id
        id: String,
    },
    /// Let a tenant's users and clients in again
    Enable {
        /// The tenant's id
        id: String,
    },
}

pub(super) async fn run(app: &App, command: TenantCommand, output: &mut impl Write) -> Result<(), CliError> {
    let (id, patch) = match command {
        TenantCommand::Add { id, name } => {
            let name = name.unwrap_or_else(|| id.clone());
            let tenant = Tenant { id, name, disabled: false };
            let revision = app.add_tenant(&tenant, &Actor::command_line()).await?;
            return print(output, &answer((tenant, revision)));
        }
        TenantCommand::List => return list(app, output).await,
        TenantCommand::Show { id } => return print(output, &answer(app.tenant(&id).await?)),
        TenantCommand::Set { id, name } => (id, TenantPatch { name: Some(name), disabled: None }),
        TenantCommand::Disable { id } => (id, TenantPatch { name: None, disabled: Some(true) }),
        TenantCommand::Enable { id } => (id, TenantPatch { name: None, disabled: Some(false) }),
    };
    print(output, &answer(app.change_tenant(&id, &patch, &Condition::Any, &Actor::command_line()).await?))
}

async fn list(app: &App, output: &mut impl Write) -> Result<(), CliError> {
    let mut after = String::new();
    loop {
        let tenants = app.store.tenants(&after, PAGE).await?;
        let Some((last, _)) = tenants.last() else { return Ok(()) };
        after.clone_from(&last.id);
        for tenant in tenants {
            print(output, &answer(tenant))?;
        }
    }
}
