//! `api-key`: keys that users and clients show to edges.

use std::io::Write;

use clap::{Args, Subcommand};
use tollgate_shared::time::UnixSeconds;

use super::{CliError, PAGE, print};
use crate::admin::{Actor, ApiKeyOrder};
use crate::api_key::ApiKeyOwner;
use crate::app::App;
use crate::routes::admin::api_key::answer;

#[derive(Debug, Subcommand)]
pub(super) enum ApiKeyCommand {
    /// Make an API key, and print it as JSON; then the key itself, which is shown only here
    Add(AddArgs),
    /// List the API keys by id, a line of JSON each
    List {
        /// Only those of the user of this name
        #[arg(long, conflicts_with = "client")]
        user: Option<String>,
        /// Only those of the client of this id
        #[arg(long)]
        client: Option<String>,
    },
    /// Print an API key as JSON
    Show(KeyId),
    /// Revoke an API key
    Revoke(KeyId),
}

#[derive(Debug, Args)]
pub(super) struct KeyId {
    /// The key's id: the eight characters after `tg_`
    id: String,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// What people call it
    name: String,
    /// The name of the user whose it is to be
    #[arg(long, conflicts_with = "client", required_unless_present = "client")]
    user: Option<String>,
    /// The id of the client whose it is to be
    #[arg(long)]
    client: Option<String>,
    /// What it is good for: at most what its owner may; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// From which second since 1970 on it is no key any more; never if this is not given
    #[arg(long, value_name = "SECONDS")]
    expires_at: Option<u64>,
}

pub(super) async fn run(app: &App, command: ApiKeyCommand, output: &mut impl Write) -> Result<(), CliError> {
    match command {
        ApiKeyCommand::Add(AddArgs { name, user, client, scopes, expires_at }) => {
            // One of the two is there: the arguments say so.
            let owner = owner(app, user, client).await?.unwrap_or_else(|| ApiKeyOwner::User(String::new()));
            let order = ApiKeyOrder { name, owner, scopes, expires_at: expires_at.map(UnixSeconds) };
            let (new, kept) = app.add_api_key(order, &Actor::command_line()).await?;
            print(output, &answer(kept))?;
            Ok(writeln!(output, "{}", new.reveal())?)
        }
        ApiKeyCommand::List { user, client } => {
            let owner = owner(app, user, client).await?;
            list(app, owner.as_ref(), output).await
        }
        ApiKeyCommand::Show(KeyId { id }) => print(output, &answer(app.api_key(&id).await?)),
        ApiKeyCommand::Revoke(KeyId { id }) => {
            app.revoke_api_key(&id, &Actor::command_line()).await?;
            Ok(writeln!(output, "revoked")?)
        }
    }
}

async fn owner(
    app: &App,
    user: Option<String>,
    client: Option<String>,
) -> Result<Option<ApiKeyOwner>, CliError> {
    Ok(match user {
        Some(name) => Some(ApiKeyOwner::User(app.user_named(&name).await?.user.id)),
        None => client.map(ApiKeyOwner::Client),
    })
}

async fn list(app: &App, owner: Option<&ApiKeyOwner>, output: &mut impl Write) -> Result<(), CliError> {
    let mut after = String::new();
    loop {
        let keys = app.store.api_keys(owner, &after, PAGE).await?;
        let Some(last) = keys.last() else { return Ok(()) };
        after.clone_from(&last.id);
        for key in keys {
            print(output, &answer(key))?;
        }
    }
}
