//! `edge`: credentials of edges.

use std::io::Write;

use clap::Subcommand;

use super::{CliError, print};
use crate::admin::Actor;
use crate::app::App;
use crate::routes::admin::edge::answer;

#[derive(Debug, Subcommand)]
pub(super) enum EdgeCommand {
    /// Make a credential for an edge, and print the `origin` part of its configuration
    Add {
        /// The edge's id
        id: String,
    },
    /// List the edges and their processes, a line of JSON each
    List,
    /// Withdraw an edge's credential
    Remove {
        /// The edge's id
        id: String,
    },
}

pub(super) async fn run(app: &App, command: EdgeCommand, output: &mut impl Write) -> Result<(), CliError> {
    match command {
        EdgeCommand::Add { id } => add(app, &id, output).await,
        EdgeCommand::List => {
            for edge in app.edges().await? {
                print(output, &answer(app, edge))?;
            }
            Ok(())
        }
        EdgeCommand::Remove { id } => {
            app.remove_edge(&id, &Actor::command_line()).await?;
            Ok(writeln!(output, "withdrawn")?)
        }
    }
}

async fn add(app: &App, id: &str, output: &mut impl Write) -> Result<(), CliError> {
    let credential = app.add_edge(id, &Actor::command_line()).await?;
    let issuer = app.settings.issuer.as_str();
    let authority =
        issuer.split_once("://").map_or(issuer, |(_, rest)| rest.split('/').next().unwrap_or(rest));
    writeln!(
        output,
        "# The credential is shown only here. `cluster` is the name that your configuration has for the issuer."
    )?;
    writeln!(output, "origin:")?;
    writeln!(output, "  cluster: issuer")?;
    writeln!(output, "  authority: \"{authority}\"")?;
    writeln!(output, "  edge_id: \"{id}\"")?;
    writeln!(output, "  credential: \"{}\"", credential.reveal())?;
    writeln!(output, "  trust_anchor: \"{}\"", app.keys.trust_anchor())?;
    Ok(())
}
