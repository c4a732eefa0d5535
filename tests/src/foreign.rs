//! Runs programs on other people's OAuth libraries, both as they are published: authlib from PyPI and oauth4webapi from
//! npm. Each is installed once, at the versions and digests that are written beside the programs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::tools::{FileLock, cache_directory, first_line, run};
use crate::workspace_root;

/// A library that is not ours, with the program that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignClient {
    /// `authlib`, for Python.
    Authlib,
    /// `oauth4webapi`, for Node.js.
    Oauth4webapi,
}

/// What a program is told: an issuer, and clients that it has. One set is for one run, as refresh tokens are spent.
#[derive(Clone, Serialize)]
pub struct ForeignParameters {
    /// The issuer's URL, as its tokens have it.
    pub issuer: String,
    /// Where it really listens, if its URL leads elsewhere.
    pub base_url: Option<String>,
    /// The `aud` of its access tokens.
    pub audience: String,
    /// A scope that each client may have for itself, and the user too.
    pub scope: String,
    /// A client with the grant `client_credentials`, and one of its secrets.
    pub secret_client: SecretClient,
    /// Clients with the same grant, and one of their keys.
    pub key_clients: Vec<KeyClient>,
    /// A login of a user at a public client with the grant `refresh_token`.
    pub login: ForeignLogin,
}

/// A client that authenticates with a secret.
#[derive(Clone, Serialize)]
pub struct SecretClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

/// A client that authenticates with a key.
#[derive(Clone, Serialize)]
pub struct KeyClient {
    /// Its id.
    pub id: String,
    /// `EdDSA`, `ES256` or `RS256`.
    pub algorithm: String,
    /// The `kid` in its JWK Set, which has one key of this algorithm.
    pub kid: String,
    /// The private key as PKCS #8 (version 1) in PEM.
    pub private_key: String,
}

/// What a login left.
#[derive(Clone, Serialize)]
pub struct ForeignLogin {
    /// At which public client.
    pub client_id: String,
    /// The refresh token.
    pub refresh_token: String,
}

/// One thing that a program did, and what came of it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ForeignStep {
    /// What it did.
    pub step: String,
    /// What the library made of the answers.
    pub result: serde_json::Value,
}

// They hold secrets and keys.
impl std::fmt::Debug for ForeignParameters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ForeignParameters").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SecretClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SecretClient").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KeyClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeyClient").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ForeignLogin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ForeignLogin").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl ForeignClient {
    /// Runs the program to its end, on this thread; the library is installed first when it is absent.
    ///
    /// # Errors
    /// When it cannot be installed, and when a step was not as expected: then with the steps before it and the reason.
    pub fn run(self, parameters: &ForeignParameters) -> Result<Vec<ForeignStep>> {
        let mut command = match self {
            Self::Authlib => authlib()?,
            Self::Oauth4webapi => oauth4webapi()?,
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting the program on {self:?}"))?;
        let mut input = child.stdin.take().context("the program has no input")?;
        // Should it have ended already, its status says more than the pipe.
        input.write_all(serde_json::to_string(parameters)?.as_bytes()).unwrap_or_default();
        drop(input);
        let output = child.wait_with_output()?;
        let lines = String::from_utf8_lossy(&output.stdout);
        let steps: Result<Vec<ForeignStep>, _> = lines.lines().map(serde_json::from_str).collect();
        let steps = steps.with_context(|| format!("{self:?} wrote something else than steps: {lines}"))?;
        if !output.status.success() {
            let done: Vec<_> = steps.iter().map(|step| step.step.as_str()).collect();
            let wrote = String::from_utf8_lossy(&output.stderr);
            bail!("{self:?} failed after {done:?} with {}:\n{}", output.status, wrote.trim_end());
        }
        ensure!(!steps.is_empty(), "{self:?} did nothing");
        Ok(steps)
    }
}

/// The program on authlib, with the packages that it imports.
fn authlib() -> Result<Command> {
    let folder = python_packages("authlib", &sources().join("requirements.txt"))?;
    let mut python = Command::new("python3");
    python.arg(sources().join("authlib_client.py"));
    python.env("PYTHONPATH", folder).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(python)
}

/// The folder with the Python packages that a file of requirements names by version and digest.
pub(crate) fn python_packages(name: &str, requirements: &PathBuf) -> Result<PathBuf> {
    let wanted = || format!("{name} could not be installed; install python3 and pip, 3.11 or later");
    // Some of the packages are compiled for one version of Python.
    let mut tag = Command::new("python3");
    tag.args(["-c", "import sys; print(sys.implementation.cache_tag)"]);
    let tag = first_line(&run(&mut tag).with_context(wanted)?);
    installed(name, &[requirements], &tag, |unfinished| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        pip.args(["--require-hashes", "--only-binary=:all:", "--target"]);
        run(pip.arg(unfinished).arg("-r").arg(requirements)).with_context(wanted)
    })
}

/// The program on oauth4webapi, beside the package: Node.js looks for packages where the program is.
fn oauth4webapi() -> Result<Command> {
    let mut node = Command::new("node");
    node.arg(node_program("oauth4webapi", &sources(), "oauth4webapi_client.mjs")?);
    Ok(node)
}

/// The path of a program for Node.js that uses packages from npm. The program, `package.json` and `package-lock.json` are
/// in the folder `sources`; the packages are installed when they are absent.
///
/// # Errors
/// When they cannot be installed.
pub fn node_program(name: &str, sources: &Path, program: &str) -> Result<PathBuf> {
    let files = ["package.json", "package-lock.json", program].map(|name| sources.join(name));
    let folder = installed(name, &files.each_ref(), "", |unfinished| {
        fs::create_dir_all(unfinished)?;
        for file in &files {
            let name = file.file_name().unwrap_or_default();
            fs::copy(file, unfinished.join(name)).with_context(|| format!("copying {}", file.display()))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix"]);
        run(npm.arg(unfinished))
            .with_context(|| format!("{name} could not be installed; install Node.js 20 or later and npm"))
    })?;
    Ok(folder.join(program))
}

/// Where the programs are, and what they need.
fn sources() -> PathBuf {
    workspace_root().join("tests/e2e/foreign_clients")
}

/// The folder in which `install` put what these files and this tag ask for: now, or an earlier time.
fn installed<T>(
    name: &str,
    files: &[&PathBuf],
    tag: &str,
    install: impl FnOnce(&Path) -> Result<T>,
) -> Result<PathBuf> {
    let mut digest = Sha256::new_with_prefix(tag);
    for file in files {
        digest.update(fs::read(file).with_context(|| format!("reading {}", file.display()))?);
    }
    let digest: String = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let tools = cache_directory()?.join("tools");
    let folder = tools.join(format!("{name}-{digest}"));
    if folder.exists() {
        return Ok(folder);
    }
    let _lock = FileLock::acquire(&tools.join(format!("{name}.lock")))?;
    if folder.exists() {
        return Ok(folder);
    }
    let unfinished = tools.join(format!("{name}.tmp"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("removing {}", unfinished.display()))?;
    }
    install(&unfinished)?;
    fs::rename(&unfinished, &folder).with_context(|| format!("renaming to {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both are installed, start and speak to the issuer; what they say of a good one is shown end to end.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_issuer_that_publishes_nothing_is_found_out_in_the_first_step() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
        let parameters = ForeignParameters {
            issuer: "https://issuer.test".to_owned(),
            base_url: Some(base_url),
            audience: "api".to_owned(),
            scope: "read".to_owned(),
            secret_client: SecretClient { id: "c".to_owned(), secret: "hidden".to_owned() },
            key_clients: Vec::new(),
            login: ForeignLogin { client_id: "c".to_owned(), refresh_token: "hidden".to_owned() },
        };
        assert!(!format!("{parameters:?}").contains("hidden"));
        for (client, reason) in [
            (ForeignClient::Authlib, "metadata: HTTPError: 404"),
            (ForeignClient::Oauth4webapi, "discovery: OperationProcessingError"),
        ] {
            let parameters = parameters.clone();
            let outcome = tokio::task::spawn_blocking(move || client.run(&parameters)).await.unwrap();
            let error = format!("{:#}", outcome.unwrap_err());
            assert!(error.contains("failed after []") && error.contains(reason), "{error}");
            assert!(!error.contains("hidden"), "{error}");
        }
        server.abort();
    }
}
