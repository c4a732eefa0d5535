//! The command line: what an operator can order on the machine that has the data, also while the service runs.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use crate::admin::{OrderError, UserOrder};
use crate::app::App;
use crate::clock::Host;
use crate::config::{ConfigError, Flags, LogFormat, LogSettings, Settings};
use crate::credential::CredentialKind;
use crate::keys::KeyError;
use crate::password::{PASSWORD_BYTES_MAX, Password, PasswordLength};
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

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(ServeArgs),
    /// Users
    #[command(subcommand)]
    User(UserCommand),
    /// Edges: Envoy processes and Workers
    #[command(subcommand)]
    Edge(EdgeCommand),
    /// Operators
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Revoke all tokens that have a value in a dimension
    Revoke(RevokeArgs),
    /// Keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Configuration
    #[command(subcommand)]
    Config(ConfigCommand),
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

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user, whose password is read from standard input, and print the user's id
    Add(UserArgs),
}

#[derive(Debug, Args)]
struct UserArgs {
    /// The name to log in with
    name: String,
    /// Read the password from standard input; there is no other way to give it
    #[arg(long)]
    password_stdin: bool,
    /// The plan that sets the user's limits
    #[arg(long)]
    plan: Option<String>,
    /// A role; may be given several times
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// A scope that the user may ask for; may be given several times
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The customer that the user belongs to
    #[arg(long)]
    tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
enum EdgeCommand {
    /// Make a credential for an edge, and print the `origin` part of its configuration
    Add {
        /// The edge's id
        id: String,
    },
}

#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// Make a credential for an operator, and print it
    Add {
        /// The operator's name
        name: String,
    },
    /// Withdraw an operator's credential
    Remove {
        /// The operator's name
        name: String,
    },
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// token, session, subject, client, tenant, key or issuer
    dimension: String,
    /// Which one
    value: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Print the trust anchor that filters check the feed with
    Anchor,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration of a filter, YAML or JSON
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print the settings that are in force
    Show,
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
    let settings = |flags: &Flags| Settings::load(config.as_deref(), environment, flags);
    match command {
        Command::Serve(ServeArgs { listen, issuer, ready_file }) => {
            let settings = settings(&Flags { listen, issuer, ..flags })?;
            run_service(Settings { ready_file, ..settings }, host).await
        }
        Command::User(UserCommand::Add(arguments)) => {
            add_user(settings(&flags)?, host, arguments, input, output).await
        }
        Command::Edge(EdgeCommand::Add { id }) => {
            add_edge(open(settings(&flags)?, host).await?, &id, output).await
        }
        Command::Operator(OperatorCommand::Add { name }) => {
            let app = open(settings(&flags)?, host).await?;
            let credential = app.add_operator(&name).await?;
            writeln!(output, "{}", credential.reveal())?;
            app.store.close().await;
            Ok(())
        }
        Command::Operator(OperatorCommand::Remove { name }) => {
            let app = open(settings(&flags)?, host).await?;
            app.store.withdraw_credential(CredentialKind::Operator, &name, app.host.seconds()).await?;
            writeln!(output, "withdrawn")?;
            app.store.close().await;
            Ok(())
        }
        Command::Revoke(RevokeArgs { dimension, value, reason }) => {
            let app = open(settings(&flags)?, host).await?;
            let order = app.revocation_order(&dimension, &value, None, reason.as_deref())?;
            let position = app.feed.revoke(&order, reason.as_deref(), "command line").await?;
            writeln!(output, "{}", position.0)?;
            app.store.close().await;
            Ok(())
        }
        Command::Key(KeyCommand::Anchor) => {
            let app = open(settings(&flags)?, host).await?;
            writeln!(output, "{}", app.keys.trust_anchor())?;
            app.store.close().await;
            Ok(())
        }
        Command::Config(ConfigCommand::Check { file }) => check_filter(&file, output),
        Command::Config(ConfigCommand::Show) => {
            let document = Settings::document(config.as_deref(), environment, &flags)?;
            Ok(write!(output, "{}", toml::to_string_pretty(&document)?)?)
        }
    }
}

async fn open(settings: Settings, host: Arc<dyn Host>) -> Result<Arc<App>, OpenError> {
    App::open(settings, host).await
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

async fn add_user(
    settings: Settings,
    host: Arc<dyn Host>,
    arguments: UserArgs,
    input: &mut impl Read,
    output: &mut impl Write,
) -> Result<(), CliError> {
    let UserArgs { name, password_stdin: _, plan, roles, scopes, tenant } = arguments;
    let password = read_password(input)?;
    let app = open(settings, host).await?;
    let user = app.add_user(UserOrder { username: name, password, plan, roles, scopes, tenant }).await?;
    writeln!(output, "{}", user.id)?;
    app.store.close().await;
    Ok(())
}

/// All of the input but one line end, which a terminal or `echo` adds.
fn read_password(input: &mut impl Read) -> Result<Password, CliError> {
    let limit = PASSWORD_BYTES_MAX + 3;
    let mut text = Zeroizing::new(String::with_capacity(limit));
    input.take(limit as u64).read_to_string(&mut text)?;
    let trimmed =
        text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text);
    Ok(Password::new(Zeroizing::new(trimmed.to_owned()))?)
}

async fn add_edge(app: Arc<App>, id: &str, output: &mut impl Write) -> Result<(), CliError> {
    let credential = app.add_edge(id).await?;
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
    app.store.close().await;
    Ok(())
}

fn check_filter(path: &Path, output: &mut impl Write) -> Result<(), CliError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| CliError::File { path: path.to_owned(), error })?;
    let yaml =
        |error: serde_saphyr::Error| CliError::Yaml { path: path.to_owned(), problem: error.to_string() };
    let value: serde_json::Value = serde_saphyr::from_str(&text).map_err(yaml)?;
    tollgate_filter::config::Config::parse(value.to_string().as_bytes())
        .map_err(|fault| CliError::Filter { path: path.to_owned(), fault })?;
    Ok(writeln!(output, "ok")?)
}
