//! `feed`: the history that edges follow.

use std::io::Write;

use clap::Subcommand;

use super::CliError;
use crate::admin::Actor;
use crate::app::App;

#[derive(Debug, Subcommand)]
pub(super) enum FeedCommand {
    /// Begin another history, after the database was restored from a backup: every edge begins anew with what there is
    Renew,
}

pub(super) async fn run(app: &App, command: FeedCommand, output: &mut impl Write) -> Result<(), CliError> {
    match command {
        FeedCommand::Renew => {
            let epoch = app.renew_feed(&Actor::command_line()).await?;
            Ok(writeln!(output, "{}", epoch.to_hex())?)
        }
    }
}
