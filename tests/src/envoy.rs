//! Runs a real Envoy and reads its admin interface.

mod bootstrap;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use serde_json::Value;

use crate::client::Client;
use crate::eventually::eventually;
use crate::evidence::Evidence;
use crate::process::Process;
use crate::tools;

pub use bootstrap::Bootstrap;

/// How Envoy is started.
#[derive(Clone, Debug)]
pub struct EnvoyOptions {
    /// Its configuration.
    pub bootstrap: Bootstrap,
    /// How many workers it has; each runs its own VM.
    pub concurrency: u32,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Further variables.
    pub variables: Vec<(String, String)>,
}

impl EnvoyOptions {
    /// Two workers and nothing else.
    pub fn new(bootstrap: Bootstrap) -> Self {
        Self { bootstrap, concurrency: 2, arguments: Vec::new(), variables: Vec::new() }
    }
}

/// A running Envoy. Dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    name: String,
    options: EnvoyOptions,
    addresses: Addresses,
    client: Client,
    evidence: Arc<Evidence>,
}

#[derive(Clone, Copy, Debug)]
struct Addresses {
    admin: SocketAddr,
    listener: SocketAddr,
}

impl Envoy {
    /// Starts it and waits until it is live.
    ///
    /// # Errors
    /// When it cannot be obtained, refuses its configuration, or is not live in time.
    pub async fn start(options: EnvoyOptions, evidence: &Arc<Evidence>) -> Result<Self> {
        Self::start_named("envoy", options, evidence).await
    }

    /// The same under another name, for a test that runs several on one folder of evidence.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn start_named(
        name: &str,
        mut options: EnvoyOptions,
        evidence: &Arc<Evidence>,
    ) -> Result<Self> {
        let client = Client::new();
        let program = tokio::task::spawn_blocking(tools::envoy).await??;
        let started = launch(&program, name, &options, evidence, &client).await;
        let (process, addresses) = started.inspect_err(|_| evidence.keep())?;
        // A restart must be found where the first start was.
        options.bootstrap = options.bootstrap.listener_port(addresses.listener.port())?;
        let (name, evidence) = (name.to_owned(), Arc::clone(evidence));
        Ok(Self { process, name, options, addresses, client, evidence })
    }

    /// Where its listener is.
    pub fn addr(&self) -> SocketAddr {
        self.addresses.listener
    }

    /// The base URL of its listener, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.listener)
    }

    /// Asks the admin interface.
    ///
    /// # Errors
    /// When the answer is not a status of the 200s.
    pub async fn admin(&self, path: &str) -> Result<String> {
        Ok(self.client.get(&format!("http://{}{path}", self.addresses.admin)).send_ok().await?.text())
    }

    /// One counter or gauge by its whole name.
    ///
    /// # Errors
    /// When there is none of that name: some exist only after the first event.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.stats(name).await?;
        stats.get(name).copied().with_context(|| format!("Envoy has no {name}; it has {stats:?}"))
    }

    /// Every counter and gauge whose name starts with `prefix`.
    ///
    /// # Errors
    /// When the admin interface does not answer.
    pub async fn stats(&self, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.admin("/stats").await?;
        // Histograms and texts are no numbers, and fall out here.
        let entries = text.lines().filter_map(|line| line.rsplit_once(": "));
        let numbers = entries.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
        Ok(numbers.filter(|(name, _)| name.starts_with(prefix)).collect())
    }

    /// All statistics as Prometheus reads them.
    ///
    /// # Errors
    /// When the admin interface does not answer.
    pub async fn prometheus(&self) -> Result<String> {
        self.admin("/stats/prometheus").await
    }

    /// All that it has logged, earlier runs included.
    pub fn logs(&self) -> String {
        self.process.logs()
    }

    /// The process, for signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it without a warning.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again with the same configuration on the same port; a process that still runs is killed first.
    ///
    /// # Errors
    /// When it is not live in time.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill();
        let started = launch(&tools::envoy()?, &self.name, &self.options, &self.evidence, &self.client).await;
        (self.process, self.addresses) = started.inspect_err(|_| self.evidence.keep())?;
        Ok(())
    }

    /// Lets Envoy check a configuration without running it. A refusal is in the status and the standard error.
    ///
    /// # Errors
    /// When Envoy cannot be obtained or started.
    pub fn validate(bootstrap: &Bootstrap) -> Result<Output> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("envoy.json");
        bootstrap.write(&path)?;
        let mut envoy = Command::new(tools::envoy()?);
        envoy.args(["--mode", "validate", "--disable-hot-restart", "-c"]).arg(path);
        envoy.output().context("starting Envoy to validate a configuration")
    }
}

const LIVE_DEADLINE: Duration = Duration::from_secs(60);

async fn launch(
    program: &Path,
    name: &str,
    options: &EnvoyOptions,
    evidence: &Evidence,
    client: &Client,
) -> Result<(Process, Addresses)> {
    let config = evidence.file(&format!("{name}.json"));
    options.bootstrap.write(&config)?;
    let admin_file = evidence.file(&format!("{name}-admin.txt"));
    if admin_file.exists() {
        fs::remove_file(&admin_file)?;
    }
    let mut arguments: Vec<OsString> = vec!["-c".into(), config.into()];
    arguments.extend(["--concurrency".into(), options.concurrency.to_string().into()]);
    arguments.extend(["--admin-address-path".into(), admin_file.clone().into()]);
    // Without hot restart a process shares no memory and no base id with another.
    arguments.extend(["--disable-hot-restart", "--log-level", "warning"].map(OsString::from));
    arguments.extend(["--component-log-level", "wasm:info"].map(OsString::from));
    arguments.extend(options.arguments.iter().map(OsString::from));
    let process = Process::spawn(name, program, arguments, &options.variables, evidence.folder())?;
    // The inner result ends the wait at once when the process has ended.
    let addresses = eventually("Envoy to be live", LIVE_DEADLINE, async || {
        if let Err(ended) = process.ensure_running() {
            return Ok(Err(ended));
        }
        let admin = fs::read_to_string(&admin_file).context("its file with the admin address")?;
        let admin: SocketAddr =
            admin.trim().parse().with_context(|| format!("its admin address: {admin:?}"))?;
        client.get(&format!("http://{admin}/ready")).send_ok().await?;
        let listeners = client.get(&format!("http://{admin}/listeners?format=json")).send_ok().await?;
        let address = listeners.json_at("/listener_statuses/0/local_address/socket_address")?;
        Ok::<_, Error>(Ok(Addresses { admin, listener: socket_address(&address)? }))
    })
    .await??;
    Ok((process, addresses))
}

fn socket_address(value: &Value) -> Result<SocketAddr> {
    let port = value.get("port_value").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let port = port.filter(|port| *port != 0).with_context(|| format!("no port yet: {value}"))?;
    // A listener on every address is reached by the loopback one.
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Upstream;

    /// An Envoy that carries everything to one upstream.
    const PLAIN: &str = r#"
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 9901 } } }
static_resources:
  listeners:
    - name: edge
      address: { socket_address: { address: 127.0.0.1, port_value: 8000 } }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: edge
                route_config:
                  virtual_hosts:
                    - { name: all, domains: ["*"], routes: [{ match: { prefix: / }, route: { cluster: application } }] }
                http_filters:
                  - name: router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:
    - name: application
      connect_timeout: 1s
      load_assignment:
        cluster_name: application
        endpoints:
          - lb_endpoints:
              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 8080 } } }
"#;

    #[tokio::test]
    async fn request_passes_a_real_envoy_before_and_after_a_restart() {
        let evidence = Evidence::of_this_test().unwrap();
        let upstream = Upstream::start().await.unwrap();
        let bootstrap =
            Bootstrap::parse(PLAIN).unwrap().on_free_ports().unwrap().upstream(upstream.addr()).unwrap();
        assert!(Envoy::validate(&bootstrap).unwrap().status.success());
        let mut envoy = Envoy::start(EnvoyOptions::new(bootstrap), &evidence).await.unwrap();
        let before = envoy.url();
        let client = Client::fresh_connections();
        assert_eq!(client.get(&before).send().await.unwrap().header("x-upstream"), Some("echo"));
        envoy.restart().await.unwrap();
        assert_eq!(envoy.url(), before);
        assert_eq!(client.get(&before).send().await.unwrap().status, 200);
        assert_eq!(envoy.stat("http.edge.downstream_rq_2xx").await.unwrap(), 1);
        assert!(envoy.prometheus().await.unwrap().contains("envoy_http_downstream_rq_total"));
        envoy.stat("no.such.statistic").await.unwrap_err();
    }

    #[tokio::test]
    async fn refused_configuration_ends_the_wait_and_shows_the_log() {
        let evidence = Evidence::of_this_test().unwrap();
        let broken = Bootstrap::parse(PLAIN).unwrap().on_free_ports().unwrap().edit(|config| {
            config["static_resources"]["clusters"][0]["no_such_field"] = true.into();
        });
        let refused = Envoy::start(EnvoyOptions::new(broken), &evidence).await.unwrap_err().to_string();
        assert!(refused.contains("no_such_field"), "{refused}");
        fs::remove_dir_all(evidence.folder()).unwrap();
    }
}
