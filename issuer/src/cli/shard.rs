//! `shard`: the databases that users are spread over.

use std::io::Write;

use clap::Subcommand;

use super::{CliError, print};
use crate::admin::Actor;
use crate::app::App;
use crate::routes::admin::shard::ShardAnswer;

#[derive(Debug, Subcommand)]
pub(super) enum ShardCommand {
    /// List the databases and how many slots of users each has, a line of JSON each
    List,
    /// Spread the slots evenly over all databases, while the service runs. What was cut short is taken up again
    Spread,
}

pub(super) async fn run(app: &App, command: ShardCommand, output: &mut impl Write) -> Result<(), CliError> {
    match command {
        ShardCommand::List => {
            for shard in app.shards().await? {
                print(output, &ShardAnswer::from(shard))?;
            }
        }
        ShardCommand::Spread => {
            let actor = Actor::command_line();
            for planned in app.store.planned_moves().await? {
                app.move_slot(planned, &actor).await?;
                writeln!(output, "slot {}: from {} to {}", planned.slot, planned.from, planned.to)?;
            }
        }
    }
    Ok(())
}
