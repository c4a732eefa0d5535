//! `revoke` and `revocation`: takes tokens back, and shows what was taken back.

use std::io::Write;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, value_parser};
use tollgate_shared::revocation::{Dimension, Position};
use tollgate_shared::time::UnixSeconds;

use super::{CliError, print};
use crate::admin::{Actor, RevocationWords};
use crate::app::App;
use crate::routes::admin::revocation::answer;
use crate::routes::admin::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::store::RevocationQuery;

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// token, session, subject, client, tenant, key or issuer
    dimension: String,
    /// Which one
    value: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Whose tokens, by their `iss`; ours if this is not given
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Only what was issued before this second since 1970: of a subject, client, tenant or issuer
    #[arg(long, value_name = "SECONDS")]
    issued_before: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(super) enum RevocationCommand {
    /// List what was revoked, oldest first, a line of JSON each
    List(ListArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only in this dimension
    #[arg(long, value_parser = PossibleValuesParser::new(Dimension::ALL.map(Dimension::name)))]
    dimension: Option<String>,
    /// Only of this value; a status list and a place in it are written with a slash between
    #[arg(long)]
    value: Option<String>,
    /// Only by this actor
    #[arg(long)]
    actor: Option<String>,
    /// Not before this second since 1970
    #[arg(long, value_name = "SECONDS")]
    since: Option<u64>,
    /// Not after this second since 1970
    #[arg(long, value_name = "SECONDS")]
    until: Option<u64>,
    /// Only after this position
    #[arg(long, value_name = "POSITION")]
    after: Option<u64>,
    /// At most this many, of 200
    #[arg(long, default_value_t = LIMIT_DEFAULT, value_parser = value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    limit: u32,
}

pub(super) async fn revoke(
    app: &App,
    arguments: RevokeArgs,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let RevokeArgs { dimension, value, reason, issuer, issued_before } = arguments;
    let words = RevocationWords {
        dimension: &dimension,
        value: &value,
        issuer: issuer.as_deref(),
        reason: reason.as_deref(),
        issued_before: issued_before.map(UnixSeconds),
    };
    let position = app.revoke(words, &Actor::command_line()).await?;
    Ok(writeln!(output, "{}", position.0)?)
}

pub(super) async fn run(
    app: &App,
    command: RevocationCommand,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let RevocationCommand::List(wanted) = command;
    let ListArgs { dimension, value, actor, since, until, after, limit } = wanted;
    let query = RevocationQuery {
        dimension: dimension.as_deref().and_then(Dimension::of),
        value,
        actor,
        since: since.map(UnixSeconds),
        until: until.map(UnixSeconds),
        after: after.map(Position),
    };
    let now = app.host.seconds();
    for record in app.store.revocations(&query, limit).await? {
        print(output, &answer(record, now))?;
    }
    Ok(())
}
