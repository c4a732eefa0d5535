//! `key`: signing keys, and the trust anchor of the feed.

use std::io::Write;

use clap::Subcommand;

use super::{CliError, print};
use crate::admin::Actor;
use crate::app::App;
use crate::routes::admin::key::KeyAnswer;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Print the trust anchor that filters check the feed with
    Anchor,
    /// List the signing keys, a line of JSON each
    List,
    /// Do with the signing keys what is due, now
    Rotate,
    /// Withdraw a signing key that is not to be trusted any more
    Withdraw {
        /// The key's id
        kid: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

pub(super) async fn run(app: &App, command: KeyCommand, output: &mut impl Write) -> Result<(), CliError> {
    let actor = Actor::command_line();
    match command {
        KeyCommand::Anchor => Ok(writeln!(output, "{}", app.keys.trust_anchor())?),
        KeyCommand::List => list(app, output).await,
        KeyCommand::Rotate => {
            app.rotate_signing_keys(&actor).await?;
            list(app, output).await
        }
        KeyCommand::Withdraw { kid, reason } => {
            app.withdraw_signing_key(&kid, &reason, &actor).await?;
            Ok(writeln!(output, "withdrawn")?)
        }
    }
}

async fn list(app: &App, output: &mut impl Write) -> Result<(), CliError> {
    for row in app.store.signing_keys().await? {
        print(output, &KeyAnswer::from(row))?;
    }
    Ok(())
}
