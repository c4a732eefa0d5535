//! The command line: what an operator can order on the machine that has the data, also while the service runs.

mod api_key;
mod audit;
mod client;
mod config;
mod edge;
mod feed;
mod key;
mod operator;
mod revocation;
mod role;
mod shard;
mod tenant;
mod user;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::admin::OrderError;
use crate::app::App;
use crate::clock::Host;
use crate::config::{ConfigError, Flags, LogFormat, LogSettings, Settings};
use crate::keys::KeyError;
use crate::password::PasswordLength;
use crate::store::StoreError;
use crate::{OpenError, ServeError, serve};

/// Issues tokens, takes them back, and tells edges what they need to decide alone.
#[derive(Debug, Parser)]
#[command(name = "tollgate-issuer", version)]
pub struct Cli {
    /// The settings, as TOML. Environment variables TOLLGATE_… and flags override them
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder with the database and the keys
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// Whether it is the service that is to be run.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(ServeArgs),
    #[command(flatten)]
    Order(Order),
    /// Configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// What needs the data.
#[derive(Debug, Subcommand)]
enum Order {
    /// Users
    #[command(subcommand)]
    User(user::UserCommand),
    /// OAuth clients
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Roles
    #[command(subcommand)]
    Role(role::RoleCommand),
    /// Tenants: the customers that users and clients belong to
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// API keys of users and clients
    #[command(subcommand)]
    ApiKey(api_key::ApiKeyCommand),
    /// Edges: Envoy processes and Workers
    #[command(subcommand)]
    Edge(edge::EdgeCommand),
    /// Operators
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Revoke all tokens that have a value in a dimension
    Revoke(revocation::RevokeArgs),
    /// What was revoked
    #[command(subcommand)]
    Revocation(revocation::RevocationCommand),
    /// Keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// The history that edges follow
    #[command(subcommand)]
    Feed(feed::FeedCommand),
    /// The databases that users are spread over
    #[command(subcommand)]
    Shard(shard::ShardCommand),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// `iss` of the tokens and base of the published URLs
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Write the address, the issuer and the trust anchor to this file once the service is ready, as JSON
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The order itself.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The password.
    #[error(transparent)]
    Password(#[from] PasswordLength),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Which address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A filter's configuration is not YAML.
    #[error("{}: {problem}", path.display())]
    Yaml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// A filter's configuration is refused.
    #[error("{}: {fault}", path.display())]
    Filter {
        /// Which file.
        path: PathBuf,
        /// Which key, and why.
        fault: tollgate_filter::config::ConfigError,
    },
    /// The settings cannot be printed.
    #[error("settings: {0}")]
    Show(#[from] toml::ser::Error),
    /// Some lines of an import are bad.
    #[error("{0} lines were not imported")]
    Import(u64),
    /// What is to be printed cannot be written as JSON.
    #[error("output: {0}")]
    Output(#[from] serde_json::Error),
    /// Standard input or output failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Carries out a command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(
    cli: Cli,
    environment: &BTreeMap<String, String>,
    host: Arc<dyn Host>,
    input: &mut impl Read,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let Cli { config, data_dir, command } = cli;
    let flags = Flags { data_dir, ..Flags::default() };
    let load = |flags: &Flags| Settings::load(config.as_deref(), environment, flags);
    match command {
        Command::Serve(ServeArgs { listen, issuer, ready_file }) => {
            let settings = load(&Flags { listen, issuer, ..flags })?;
            run_service(Settings { ready_file, ..settings }, host).await
        }
        Command::Config(config::ConfigCommand::Check { file }) => config::check(&file, output),
        Command::Config(config::ConfigCommand::Show) => {
            let document = Settings::document(config.as_deref(), environment, &flags)?;
            Ok(write!(output, "{}", toml::to_string_pretty(&document)?)?)
        }
        Command::Order(order) => {
            let app = App::open(load(&flags)?, host).await?;
            let done = Box::pin(carry_out(&app, order, input, output)).await;
            // What was changed is told to the replicas before this process ends.
            app.cache.settle(SETTLE_TIMEOUT).await;
            app.store.close().await;
            done
        }
    }
}

/// Carries out what needs the data.
async fn carry_out(
    app: &App,
    order: Order,
    input: &mut impl Read,
    output: &mut impl Write,
) -> Result<(), CliError> {
    match order {
        Order::User(command) => user::run(app, command, input, output).await,
        Order::Client(command) => client::run(app, command, input, output).await,
        Order::Role(command) => role::run(app, command, output).await,
        Order::Tenant(command) => tenant::run(app, command, output).await,
        Order::ApiKey(command) => api_key::run(app, command, output).await,
        Order::Edge(command) => edge::run(app, command, output).await,
        Order::Operator(command) => operator::run(app, command, output).await,
        Order::Key(command) => key::run(app, command, output).await,
        Order::Audit(command) => audit::run(app, command, output).await,
        Order::Feed(command) => feed::run(app, command, output).await,
        Order::Shard(command) => shard::run(app, command, output).await,
        Order::Revoke(arguments) => revocation::revoke(app, arguments, output).await,
        Order::Revocation(command) => revocation::run(app, command, output).await,
    }
}

/// How long a command waits for the replicas to be told of what it changed.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How many entries a list is read by at once.
const PAGE: u32 = 200;

/// Prints something as a line of JSON.
fn print(output: &mut impl Write, what: &impl Serialize) -> Result<(), CliError> {
    serde_json::to_writer(&mut *output, what)?;
    Ok(writeln!(output)?)
}

async fn run_service(settings: Settings, host: Arc<dyn Host>) -> Result<(), CliError> {
    start_log(&settings.log);
    let address = settings.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| CliError::Listen { address, error })?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(serve(settings, host, listener, shutdown).await?)
}

fn start_log(settings: &LogSettings) {
    let LogSettings { format, level } = settings;
    // The filter was checked with the settings.
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
