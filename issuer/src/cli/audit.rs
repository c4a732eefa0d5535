//! `audit`: the log of what was done.

use std::io::Write;

use clap::{Args, Subcommand};
use tollgate_shared::time::UnixSeconds;

use super::CliError;
use crate::app::App;
use crate::audit::AuditQuery;
use crate::routes::admin::audit::{EXPORT_PAGE, is_full, written_lines};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Print the first events that are wanted, a line of JSON each
    List {
        #[command(flatten)]
        wanted: Wanted,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Print all events that are wanted, a line of JSON each
    Export {
        #[command(flatten)]
        wanted: Wanted,
    },
}

#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Only of this actor
    #[arg(long)]
    actor: Option<String>,
    /// Only of this action
    #[arg(long)]
    action: Option<String>,
    /// Only of this target
    #[arg(long)]
    target: Option<String>,
    /// Not before this second since 1970
    #[arg(long, value_name = "SECONDS")]
    since: Option<u64>,
    /// Not after this second since 1970
    #[arg(long, value_name = "SECONDS")]
    until: Option<u64>,
    /// Only after the event of this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

impl From<Wanted> for AuditQuery {
    fn from(wanted: Wanted) -> Self {
        let Wanted { actor, action, target, since, until, after } = wanted;
        let (since, until) = (since.map(UnixSeconds), until.map(UnixSeconds));
        Self { actor, action, target, since, until, after }
    }
}

pub(super) async fn run(app: &App, command: AuditCommand, output: &mut impl Write) -> Result<(), CliError> {
    match command {
        AuditCommand::List { wanted, limit } => {
            let events = app.store.audit(&wanted.into(), limit).await?;
            Ok(output.write_all(written_lines(events).as_bytes())?)
        }
        AuditCommand::Export { wanted } => {
            let mut query = AuditQuery::from(wanted);
            loop {
                let events = app.store.audit(&query, EXPORT_PAGE).await?;
                let Some(last) = events.last() else { return Ok(()) };
                query.after = Some(last.id.clone());
                let is_last = !is_full(&events);
                output.write_all(written_lines(events).as_bytes())?;
                if is_last {
                    return Ok(());
                }
            }
        }
    }
}
