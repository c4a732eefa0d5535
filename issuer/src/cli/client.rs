//! `client`: OAuth clients and their secrets.

use std::io::{Read, Write};

use clap::{Args, Subcommand, ValueEnum};

use super::{CliError, PAGE, print};
use crate::admin::{Actor, ClientPatch, Condition};
use crate::app::App;
use crate::client::{AuthenticationOrder, ClientOrder, JWKS_BYTES_MAX};
use crate::routes::admin::client::answer;

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Add a client, and print it as JSON; then its secret, if it has one, which is shown only here
    Add(AddArgs),
    /// List the clients by id, a line of JSON each
    List,
    /// Print a client as JSON
    Show(ClientId),
    /// Change a client
    Set(SetArgs),
    /// Refuse a client, and cut off what it has
    Disable(ClientId),
    /// Let a client in again
    Enable(ClientId),
    /// Delete a client, and cut off what it has
    Delete(ClientId),
    /// Secrets
    #[command(subcommand)]
    Secret(SecretCommand),
}

#[derive(Debug, Args)]
pub(super) struct ClientId {
    /// The client's id
    id: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Make one more secret, and print its id and the secret, which is shown only here
    Add(ClientId),
    /// Withdraw a secret
    Withdraw {
        /// The client's id
        id: String,
        /// The secret's id
        secret: String,
    },
}

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Auth {
    /// Not at all
    None,
    /// With a secret that is made for it
    Secret,
    /// With the keys of a JWK Set, which is read from standard input
    Keys,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// What people call it
    name: String,
    /// By what it shall be known; something new if this is not given
    #[arg(long)]
    id: Option<String>,
    /// How it proves who it is
    #[arg(long, value_enum, default_value_t = Auth::None)]
    auth: Auth,
    /// login, refresh_token or client_credentials; may be given several times
    #[arg(long = "grant", value_name = "GRANT", required = true)]
    grants: Vec<String>,
    /// What its own tokens may be good for; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A role in those tokens; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// The plan that sets the limits of those tokens
    #[arg(long)]
    plan: Option<String>,
    /// The customer that it belongs to
    #[arg(long)]
    tenant: Option<String>,
    /// Let it ask about tokens that are not its own
    #[arg(long)]
    may_introspect: bool,
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The client's id
    id: String,
    /// Another name
    #[arg(long)]
    name: Option<String>,
    /// The grants from now on; may be given several times
    #[arg(long = "grant", value_name = "GRANT")]
    grants: Vec<String>,
    /// The scopes from now on; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", conflicts_with = "no_scopes")]
    scopes: Vec<String>,
    /// No scopes from now on
    #[arg(long)]
    no_scopes: bool,
    /// The roles from now on; may be given several times
    #[arg(long = "role", value_name = "ROLE", conflicts_with = "no_roles")]
    roles: Vec<String>,
    /// No roles from now on
    #[arg(long)]
    no_roles: bool,
    /// Another plan
    #[arg(long)]
    plan: Option<String>,
    /// Another customer
    #[arg(long, conflicts_with = "no_tenant")]
    tenant: Option<String>,
    /// No customer from now on
    #[arg(long)]
    no_tenant: bool,
    /// Whether it may ask about tokens that are not its own
    #[arg(long)]
    may_introspect: Option<bool>,
    /// Read the JWK Set with its keys from now on from standard input, if it authenticates with keys
    #[arg(long)]
    keys_stdin: bool,
}

pub(super) async fn run(
    app: &App,
    command: ClientCommand,
    input: &mut impl Read,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let actor = Actor::command_line();
    let any = Condition::Any;
    match command {
        ClientCommand::Add(arguments) => {
            let (new, revision) = app.add_client(order(arguments, input)?, &actor).await?;
            print(output, &answer((new.client, revision)))?;
            if let Some(secret) = new.secret {
                writeln!(output, "{}", secret.reveal())?;
            }
            Ok(())
        }
        ClientCommand::List => list(app, output).await,
        ClientCommand::Show(ClientId { id }) => print(output, &answer(app.client(&id).await?)),
        ClientCommand::Set(arguments) => {
            let (id, patch) = patch(arguments, input)?;
            print(output, &answer(app.change_client(&id, &patch, &any, &actor).await?))
        }
        ClientCommand::Disable(ClientId { id }) => {
            let patch = ClientPatch { disabled: Some(true), ..ClientPatch::default() };
            print(output, &answer(app.change_client(&id, &patch, &any, &actor).await?))
        }
        ClientCommand::Enable(ClientId { id }) => {
            let patch = ClientPatch { disabled: Some(false), ..ClientPatch::default() };
            print(output, &answer(app.change_client(&id, &patch, &any, &actor).await?))
        }
        ClientCommand::Delete(ClientId { id }) => {
            app.delete_client(&id, &any, &actor).await?;
            Ok(writeln!(output, "deleted")?)
        }
        ClientCommand::Secret(SecretCommand::Add(ClientId { id })) => {
            let (secret, _) = app.add_client_secret(&id, &any, &actor).await?;
            Ok(writeln!(output, "{} {}", secret.kept.id, secret.reveal())?)
        }
        ClientCommand::Secret(SecretCommand::Withdraw { id, secret }) => {
            app.withdraw_client_secret(&id, &secret, &any, &actor).await?;
            Ok(writeln!(output, "withdrawn")?)
        }
    }
}

fn order(arguments: AddArgs, input: &mut impl Read) -> Result<ClientOrder, CliError> {
    let AddArgs { name, id, auth, grants, scopes, roles, plan, tenant, may_introspect } = arguments;
    let auth = match auth {
        Auth::None => AuthenticationOrder::None,
        Auth::Secret => AuthenticationOrder::Secret,
        Auth::Keys => AuthenticationOrder::PrivateKeyJwt(read_jwks(input)?),
    };
    Ok(ClientOrder { id, name, auth, grants, scopes, roles, plan, tenant, may_introspect })
}

fn read_jwks(input: &mut impl Read) -> Result<String, CliError> {
    let mut jwks = String::new();
    // One more than may be: the rule for the length is elsewhere.
    input.take(JWKS_BYTES_MAX as u64 + 1).read_to_string(&mut jwks)?;
    Ok(jwks)
}

fn patch(arguments: SetArgs, input: &mut impl Read) -> Result<(String, ClientPatch), CliError> {
    let SetArgs { id, name, grants, scopes, no_scopes, roles, no_roles, plan, tenant, .. } = arguments;
    let SetArgs { no_tenant, may_introspect, keys_stdin, .. } = arguments;
    let list = |list: Vec<String>, none: bool| (none || !list.is_empty()).then_some(list);
    let tenant = if no_tenant { Some(None) } else { tenant.map(Some) };
    let (grants, scopes, roles) = (list(grants, false), list(scopes, no_scopes), list(roles, no_roles));
    let jwks = if keys_stdin { Some(read_jwks(input)?) } else { None };
    let disabled = None;
    let patch = ClientPatch { name, grants, scopes, roles, plan, tenant, may_introspect, disabled, jwks };
    Ok((id, patch))
}

async fn list(app: &App, output: &mut impl Write) -> Result<(), CliError> {
    let mut after = String::new();
    loop {
        let clients = app.store.clients(&after, PAGE).await?;
        let Some((last, _)) = clients.last() else { return Ok(()) };
        last.id.as_str().clone_into(&mut after);
        for client in clients {
            print(output, &answer(client))?;
        }
    }
}
