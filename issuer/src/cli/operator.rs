//! `operator`: credentials of operators.

use std::io::Write;

use clap::Subcommand;

use super::{CliError, print};
use crate::admin::Actor;
use crate::app::App;
use crate::routes::admin::operator::OperatorAnswer;

#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommand {
    /// Make a credential for an operator, and print it
    Add {
        /// The operator's name
        name: String,
        /// What the operator may do, such as users:read; may be given several times. Everything if it is not given
        #[arg(long = "permission", value_name = "PERMISSION")]
        permissions: Vec<String>,
    },
    /// List the operators and what each may do, a line of JSON each
    List,
    /// Withdraw an operator's credential
    Remove {
        /// The operator's name
        name: String,
    },
}

pub(super) async fn run(
    app: &App,
    command: OperatorCommand,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let actor = Actor::command_line();
    match command {
        OperatorCommand::Add { name, permissions } => {
            let credential = app.add_operator(&name, &permissions, &actor).await?;
            Ok(writeln!(output, "{}", credential.reveal())?)
        }
        OperatorCommand::List => {
            for operator in app.store.operators().await? {
                print(output, &OperatorAnswer::from(operator))?;
            }
            Ok(())
        }
        OperatorCommand::Remove { name } => {
            app.remove_operator(&name, &actor).await?;
            Ok(writeln!(output, "withdrawn")?)
        }
    }
}
