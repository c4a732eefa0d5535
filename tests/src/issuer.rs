//! Runs the issuer's binary and speaks to it as an operator and as a user.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, ensure};
use serde_json::{Value, json};

use crate::client::{Client, Request};
use crate::eventually::eventually;
use crate::evidence::Evidence;
use crate::process::Process;
use crate::redis_server::RedisServer;
use crate::tools::{cargo, installed, run};

/// Which program is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Program {
    /// What users run, built quickly.
    #[default]
    Shipped,
    /// The same, which can be told to end in the middle of a step: for tests only.
    Crashing,
    /// One at this path that is the issuer too, built in whatever way.
    At(PathBuf),
}

/// How the issuer is started.
#[derive(Clone, Debug)]
pub struct IssuerOptions {
    /// Which program.
    pub program: Program,
    /// The `iss` of its tokens. It need not be reachable: nothing looks it up.
    pub issuer: String,
    /// Further variables, such as `TOLLGATE_…` settings.
    pub variables: Vec<(String, String)>,
    /// A data folder that exists already, from an earlier run or another machine.
    pub data: Option<PathBuf>,
    /// Where to listen; a port that the system picks when `None`.
    pub listen: Option<SocketAddr>,
    /// How many bytes of memory of its own it may have, which the kernel enforces; no limit when `None`.
    pub memory_max: Option<u64>,
}

impl Default for IssuerOptions {
    fn default() -> Self {
        Self {
            program: Program::default(),
            issuer: "http://issuer.test".to_owned(),
            variables: Vec::new(),
            data: None,
            listen: None,
            memory_max: None,
        }
    }
}

impl IssuerOptions {
    /// The issuer on a database of PostgreSQL and with counters in Redis: what replicas share.
    #[must_use]
    pub fn on(database_url: &str, redis: &RedisServer) -> Self {
        Self::default()
            .with("DATABASE__URL", database_url)
            .with("REDIS__URL", &redis.url())
            .with("KEYS__ENCRYPTION_KEY", SHARED_ENCRYPTION_KEY)
    }

    /// These and one more setting, by what its variable is called after `TOLLGATE_`.
    #[must_use]
    pub fn with(mut self, setting: &str, value: &str) -> Self {
        self.variables.push((format!("TOLLGATE_{setting}"), value.to_owned()));
        self
    }
}

/// What replicas seal with: they have to be given one key, and in a test it guards nothing.
/// What replicas of a test open their sealed keys with.
pub const SHARED_ENCRYPTION_KEY: &str = "dGhlIGtleSBvZiBhIHRlc3QgZ3VhcmRzIG5vdGhpbmc";

/// A running issuer. Dropping it kills it.
#[derive(Debug)]
pub struct Issuer {
    process: Process,
    name: String,
    options: IssuerOptions,
    data: PathBuf,
    ready: Ready,
    operator_token: String,
    client: Client,
    evidence: Arc<Evidence>,
}

/// What the issuer says of itself once it listens.
#[derive(Clone, Debug, serde::Deserialize)]
struct Ready {
    listen: SocketAddr,
    issuer: String,
    trust_anchor: String,
}

/// What a login gave.
#[derive(Clone, Debug)]
pub struct Login {
    /// The bearer token.
    pub access_token: String,
    /// The `sub` of the token.
    pub user_id: String,
    /// For the next tokens.
    pub refresh_token: String,
    /// The whole answer.
    pub raw: Value,
}

/// Builds the issuer, at most once in this process, and gives the path of its binary.
///
/// # Errors
/// When it does not compile.
pub fn binary() -> Result<PathBuf> {
    binary_of(&Program::Shipped)
}

/// The same of either program.
///
/// # Errors
/// When it does not compile.
pub fn binary_of(program: &Program) -> Result<PathBuf> {
    static SHIPPED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    static CRASHING: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let once = match program {
        Program::Shipped => &SHIPPED,
        Program::At(path) => return Ok(path.clone()),
        Program::Crashing => &CRASHING,
    };
    once.get_or_init(|| compile(program).map_err(|error| format!("{error:#}"))).clone().map_err(Error::msg)
}

fn compile(program: &Program) -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--locked", "--package", "tollgate-issuer"]);
    cargo.args(match program {
        Program::Shipped | Program::At(_) => ["--bin", "tollgate-issuer"],
        Program::Crashing => ["--example", "crashing"],
    });
    let output = run(cargo.arg("--message-format=json-render-diagnostics"))?;
    let messages =
        output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let executable = |message: Value| message.get("executable")?.as_str().map(PathBuf::from);
    messages.filter_map(executable).next_back().context("cargo built no executable for tollgate-issuer")
}

impl Issuer {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not build, does not start, or is not ready in time.
    pub async fn start(options: IssuerOptions, evidence: &Arc<Evidence>) -> Result<Self> {
        Self::start_named("issuer", options, evidence).await
    }

    /// The same under another name, for a test that runs several on one folder of evidence.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn start_named(name: &str, options: IssuerOptions, evidence: &Arc<Evidence>) -> Result<Self> {
        let data = options.data.clone().unwrap_or_else(|| evidence.file(&format!("{name}-data")));
        fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
        let client = Client::new();
        let which = options.program.clone();
        let program = tokio::task::spawn_blocking(move || binary_of(&which)).await??;
        let started = launch(&program, name, &options, &data, evidence, &client).await;
        let (process, ready) = started.inspect_err(|_| evidence.keep())?;
        let token = data.join(OPERATOR_FILE);
        let operator_token =
            fs::read_to_string(&token).with_context(|| format!("reading {}", token.display()))?;
        let operator_token = operator_token.trim().to_owned();
        let (name, evidence) = (name.to_owned(), Arc::clone(evidence));
        Ok(Self { process, name, options, data, ready, operator_token, client, evidence })
    }

    /// Starts another process on the same database, with a data folder of its own.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn start_replica(&self, name: &str) -> Result<Self> {
        let data = self.evidence.file(&format!("{name}-data"));
        fs::create_dir_all(&data).with_context(|| format!("creating {}", data.display()))?;
        // Only the first start on a database leaves a token for the operator.
        fs::copy(self.data.join(OPERATOR_FILE), data.join(OPERATOR_FILE)).context("copying its token")?;
        let options = IssuerOptions { data: Some(data), listen: None, ..self.options.clone() };
        Self::start_named(name, options, &self.evidence).await
    }

    /// Starts it again as [`restart`](Self::restart) does, with one setting changed.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn restart_with(&mut self, setting: &str, value: &str) -> Result<()> {
        self.options = self.options.clone().with(setting, value);
        self.restart().await
    }

    /// The sum of a metric over the labels that contain `labels`; 0 when nothing has been counted.
    ///
    /// # Errors
    /// When the issuer refuses, or a value is no number.
    pub async fn metric(&self, name: &str, labels: &str) -> Result<u64> {
        let text = self.operator("GET", "/metrics").send_ok().await?.text();
        let mut sum = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix(name)) {
            let Some((found, value)) = line.rsplit_once(' ') else { continue };
            if (found.is_empty() || found.starts_with('{')) && found.contains(labels) {
                sum += value.parse::<u64>().with_context(|| format!("the value of {name}{line}"))?;
            }
        }
        Ok(sum)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.ready.listen
    }

    /// Where it can be reached, without a slash at its end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.ready.listen)
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.ready.issuer
    }

    /// The public half of the feed key, as edges are configured with it.
    pub fn trust_anchor(&self) -> &str {
        &self.ready.trust_anchor
    }

    /// The token that the first start left for the operator.
    pub fn operator_token(&self) -> &str {
        &self.operator_token
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The process, for signals and logs.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts a request to it with the operator's token.
    pub fn operator(&self, method: &str, path: &str) -> Request<'_> {
        self.client.request(method, &format!("{}{path}", self.base_url())).bearer(&self.operator_token)
    }

    /// Adds a user and gives back what the issuer says of it.
    ///
    /// # Errors
    /// When the issuer refuses.
    pub async fn add_user(
        &self,
        name: &str,
        password: &str,
        plan: &str,
        roles: &[&str],
        scopes: &[&str],
    ) -> Result<Value> {
        let user = json!({
            "username": name, "password": password, "plan": plan, "roles": roles, "scopes": scopes,
        });
        self.operator("POST", "/v1/admin/users").json(&user).send_ok().await?.json()
    }

    /// Adds an edge and gives back its credential, which is shown once.
    ///
    /// # Errors
    /// When the issuer refuses.
    pub async fn add_edge(&self, id: &str) -> Result<String> {
        let added = self.operator("POST", "/v1/admin/edges").json(&json!({ "id": id })).send_ok().await?;
        text(&added.json_at("/credential")?)
    }

    /// Exchanges a refresh token of a login for the next tokens, and gives back the whole answer.
    ///
    /// # Errors
    /// When the issuer refuses.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Value> {
        let url = format!("{}/oauth2/token", self.base_url());
        let form =
            [("grant_type", "refresh_token"), ("client_id", "first-party"), ("refresh_token", refresh_token)];
        self.client.post(&url).form(&form).send_ok().await?.json()
    }

    /// Logs a user in.
    ///
    /// # Errors
    /// When the issuer refuses.
    pub async fn login(&self, name: &str, password: &str) -> Result<Login> {
        let url = format!("{}/v1/login", self.base_url());
        let answer = self.client.post(&url).json(&json!({ "username": name, "password": password }));
        let answer = answer.send_ok().await?;
        let access_token = text(&answer.json_at("/access_token")?)?;
        let user_id = text(&answer.json_at("/user/id")?)?;
        let refresh_token = text(&answer.json_at("/refresh_token")?)?;
        Ok(Login { access_token, user_id, refresh_token, raw: answer.json()? })
    }

    /// Revokes everything that was issued to a user and gives back the position of the change in the feed.
    ///
    /// # Errors
    /// When the issuer refuses.
    pub async fn revoke_subject(&self, user_id: &str) -> Result<u64> {
        let revocation = json!({ "dimension": "subject", "value": user_id });
        let answer = self.operator("POST", "/v1/admin/revocations").json(&revocation).send_ok().await?;
        answer.json_at("/position")?.as_u64().with_context(|| format!("no position: {answer}"))
    }

    /// Revokes one token (RFC 7009).
    ///
    /// # Errors
    /// When the issuer refuses.
    pub async fn revoke_token(&self, token: &str) -> Result<()> {
        let revoked = self.operator("POST", "/oauth2/revoke").form(&[("token", token)]).send().await?;
        ensure!(revoked.status == 200, "revoking a token: {revoked}");
        Ok(())
    }

    /// Kills it without a warning.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it has ended before, or does not end in time.
    pub async fn terminate(&self) -> Result<ExitStatus> {
        self.process.signal("TERM")?;
        self.process.wait_exit(EXIT_DEADLINE).await
    }

    /// Starts it again on the same data and the same port; a process that still runs is killed first.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn restart(&mut self) -> Result<()> {
        self.restart_once_with(&[]).await
    }

    /// The same with further variables, this once.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn restart_once_with(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        self.process.kill();
        self.options.listen = Some(self.ready.listen);
        let mut options = self.options.clone();
        let further = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        options.variables.extend(further);
        let program = binary_of(&options.program)?;
        let started = launch(&program, &self.name, &options, &self.data, &self.evidence, &self.client).await;
        (self.process, self.ready) = started.inspect_err(|_| self.evidence.keep())?;
        Ok(())
    }
}

/// Where the first start leaves the operator's token.
const OPERATOR_FILE: &str = "operator.token";
const READY_DEADLINE: Duration = Duration::from_secs(30);
const EXIT_DEADLINE: Duration = Duration::from_secs(20);

async fn launch(
    program: &Path,
    name: &str,
    options: &IssuerOptions,
    data: &Path,
    evidence: &Evidence,
    client: &Client,
) -> Result<(Process, Ready)> {
    let ready_file = evidence.file(&format!("{name}-ready.json"));
    if ready_file.exists() {
        fs::remove_file(&ready_file)?;
    }
    let listen = options.listen.map_or_else(|| "127.0.0.1:0".to_owned(), |listen| listen.to_string());
    let mut arguments: Vec<OsString> = Vec::new();
    let mut program = program.to_owned();
    if let Some(bytes) = options.memory_max {
        // It replaces itself with the program, so that the process is the issuer's.
        let prlimit = installed("prlimit", &[], "util-linux")?;
        let program = std::mem::replace(&mut program, prlimit);
        arguments.extend([format!("--data={bytes}").into(), "--".into(), program.into()]);
    }
    let fixed: [OsString; 9] = [
        "serve".into(),
        "--data-dir".into(),
        data.into(),
        "--listen".into(),
        listen.into(),
        "--issuer".into(),
        options.issuer.clone().into(),
        "--ready-file".into(),
        ready_file.clone().into(),
    ];
    arguments.extend(fixed);
    // All that a test does comes from one address; what is tested of the limits sets them itself.
    let mut variables: Vec<(String, String)> = ["ADDRESS_PER_MINUTE", "NETWORK_PER_MINUTE"]
        .map(|limit| (format!("TOLLGATE_THROTTLE__{limit}"), "1000000".to_owned()))
        .to_vec();
    variables.extend(options.variables.iter().cloned());
    let process = Process::spawn(name, &program, arguments, &variables, evidence.folder())?;
    // The inner result ends the wait at once when the process has ended.
    let ready = eventually("the issuer to be ready", READY_DEADLINE, async || {
        if let Err(ended) = process.ensure_running() {
            return Ok(Err(ended));
        }
        let text = fs::read_to_string(&ready_file).context("its ready file")?;
        let ready: Ready =
            serde_json::from_str(&text).with_context(|| format!("its ready file: {text:?}"))?;
        client.get(&format!("http://{}/readyz", ready.listen)).send_ok().await?;
        Ok::<_, Error>(Ok(ready))
    })
    .await??;
    Ok((process, ready))
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("not text: {value}"))
}
