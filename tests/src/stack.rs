//! Starts the whole of it: issuer, upstream and an Envoy with the filter between them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::client::{Client, Response};
use crate::envoy::{Bootstrap, Envoy, EnvoyOptions};
use crate::eventually::eventually;
use crate::evidence::Evidence;
use crate::fault_proxy::FaultProxy;
use crate::feed_proxy::FeedProxy;
use crate::issuer::{Issuer, IssuerOptions};
use crate::module::{self, Variant};
use crate::upstream::Upstream;

/// How the stack is started.
pub struct StackOptions {
    /// How many workers Envoy has.
    pub concurrency: u32,
    /// Which build of the filter it loads.
    pub variant: Variant,
    /// How the issuer is started.
    pub issuer: IssuerOptions,
    /// Whether a [`FaultProxy`] stands between Envoy and the issuer.
    pub through_fault_proxy: bool,
    /// Whether a [`FeedProxy`] stands between Envoy and the issuer, before a [`FaultProxy`] if there is one.
    pub through_feed_proxy: bool,
    /// The id under which the edge is added.
    pub edge_id: String,
    /// Changes to the filter's configuration; see [`StackOptions::edit_plugin`].
    pub plugin: Edit,
    /// Changes to Envoy's configuration; see [`StackOptions::edit_bootstrap`].
    pub bootstrap: Edit,
}

/// Changes a configuration before it is used.
pub type Edit = Box<dyn FnOnce(&mut Value) + Send>;

impl Default for StackOptions {
    fn default() -> Self {
        Self {
            concurrency: 2,
            variant: Variant::Shipped,
            issuer: IssuerOptions::default(),
            through_fault_proxy: false,
            through_feed_proxy: false,
            edge_id: "demo".to_owned(),
            plugin: Box::new(|_| {}),
            bootstrap: Box::new(|_| {}),
        }
    }
}

impl StackOptions {
    /// Changes the filter's configuration before it is used; see [`plugin_config`] for what it is.
    pub fn edit_plugin(mut self, change: impl FnOnce(&mut Value) + Send + 'static) -> Self {
        let earlier = self.plugin;
        self.plugin = Box::new(|config| {
            earlier(config);
            change(config);
        });
        self
    }

    /// Changes Envoy's configuration before it is used.
    pub fn edit_bootstrap(mut self, change: impl FnOnce(&mut Value) + Send + 'static) -> Self {
        let earlier = self.bootstrap;
        self.bootstrap = Box::new(|config| {
            earlier(config);
            change(config);
        });
        self
    }
}

impl fmt::Debug for StackOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            concurrency,
            variant,
            issuer,
            through_fault_proxy,
            through_feed_proxy,
            edge_id,
            plugin: _,
            bootstrap: _,
        } = self;
        f.debug_struct("StackOptions")
            .field("concurrency", concurrency)
            .field("variant", variant)
            .field("issuer", issuer)
            .field("through_fault_proxy", through_fault_proxy)
            .field("through_feed_proxy", through_feed_proxy)
            .field("edge_id", edge_id)
            .finish_non_exhaustive()
    }
}

/// Everything that runs. It ends in the order of the fields; the evidence goes last.
#[derive(Debug)]
pub struct Stack {
    /// The edge.
    pub envoy: Envoy,
    /// Between the edge and the issuer, when it was asked for.
    pub fault_proxy: Option<FaultProxy>,
    /// The same, of the kind that knows HTTP.
    pub feed_proxy: Option<FeedProxy>,
    /// The issuer.
    pub issuer: Issuer,
    /// The application.
    pub upstream: Upstream,
    /// The edge's credential at the issuer.
    pub credential: String,
    /// A client that keeps its connections.
    pub client: Client,
    /// Where logs and data are.
    pub evidence: Arc<Evidence>,
}

impl Stack {
    /// Starts everything for the running test and waits until the edge decides.
    ///
    /// # Errors
    /// When a part does not build, start, or become ready; the evidence is kept then.
    pub async fn start(options: StackOptions) -> Result<Self> {
        Self::start_with(options, Evidence::of_this_test()?).await
    }

    /// The same with a folder of evidence that exists.
    ///
    /// # Errors
    /// Those of [`start`](Self::start).
    pub async fn start_with(options: StackOptions, evidence: Arc<Evidence>) -> Result<Self> {
        let started = Self::launch(options, &evidence).await;
        started.inspect_err(|_| evidence.keep())
    }

    async fn launch(options: StackOptions, evidence: &Arc<Evidence>) -> Result<Self> {
        let StackOptions {
            concurrency,
            variant,
            issuer,
            through_fault_proxy,
            through_feed_proxy,
            edge_id,
            plugin,
            bootstrap,
        } = options;
        let module = tokio::task::spawn_blocking(move || module::build(variant)).await??;
        let issuer = Issuer::start(issuer, evidence).await.context("starting the issuer")?;
        let upstream = Upstream::start().await?;
        let fault_proxy =
            if through_fault_proxy { Some(FaultProxy::start(issuer.addr()).await?) } else { None };
        let issuer_address = fault_proxy.as_ref().map_or_else(|| issuer.addr(), FaultProxy::addr);
        let feed_proxy =
            if through_feed_proxy { Some(FeedProxy::start(issuer_address).await?) } else { None };
        let issuer_address = feed_proxy.as_ref().map_or(issuer_address, FeedProxy::addr);
        let credential = issuer.add_edge(&edge_id).await.context("adding the edge")?;
        let mut config = plugin_config(&issuer, &edge_id, &credential);
        plugin(&mut config);
        let config = Bootstrap::load()?
            .on_free_ports()?
            .upstream(upstream.addr())?
            .issuer(issuer_address)?
            .module(&module)?
            .plugin_config(&config)?
            .edit(bootstrap);
        let envoy = EnvoyOptions { concurrency, ..EnvoyOptions::new(config) };
        let envoy = Envoy::start(envoy, evidence).await.context("starting Envoy")?;
        let (client, evidence) = (Client::new(), Arc::clone(evidence));
        let stack = Self { envoy, fault_proxy, feed_proxy, issuer, upstream, credential, client, evidence };
        stack.wait_until_deciding().await?;
        Ok(stack)
    }

    /// Waits until public requests pass and protected ones are refused for their lack of a token, on every worker that
    /// a few new connections meet.
    ///
    /// # Errors
    /// When that is not so in time.
    pub async fn wait_until_deciding(&self) -> Result<()> {
        let client = Client::fresh_connections();
        let answers = async |path: &str, expected: u16| -> Result<()> {
            let answer = client.get(&format!("{}{path}", self.envoy.url())).send().await?;
            if answer.status != expected {
                bail!("GET {path}: {answer}");
            }
            Ok(())
        };
        eventually("the edge to decide", DECIDING_DEADLINE, async || {
            for _ in 0..CONNECTIONS_TRIED {
                answers("/public/", 200).await?;
                answers("/", 401).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
        .await
    }

    /// Asks the edge for `path` with a token.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str, token: &str) -> Result<Response> {
        self.client.get(&format!("{}{path}", self.envoy.url())).bearer(token).send().await
    }
}

const DECIDING_DEADLINE: Duration = Duration::from_secs(30);
const CONNECTIONS_TRIED: usize = 16;

/// The filter's configuration of the demo, and of tests that do not change it: tokens of the issuer, a public folder, and
/// everything else for the scope `read` within the quota `api`.
pub fn plugin_config(issuer: &Issuer, edge_id: &str, credential: &str) -> Value {
    json!({
        "providers": [{
            "name": "home",
            "issuer": issuer.issuer(),
            "audiences": ["api"],
            "keys": "feed",
            "algorithms": ["EdDSA"],
            "claim_to_headers": [{ "claim_name": "sub", "header_name": "x-tollgate-subject" }],
        }],
        "origin": {
            "cluster": "issuer",
            "authority": issuer.addr().to_string(),
            "edge_id": edge_id,
            "credential": credential,
            "trust_anchor": issuer.trust_anchor(),
            "poll_interval_ms": 1000,
            "long_poll_seconds": 20,
        },
        "rules": [
            { "match": { "prefix": "/public/" }, "requires": "none" },
            { "match": { "prefix": "/" }, "requires": { "scopes": ["read"] }, "quotas": [{ "name": "api" }] },
        ],
    })
}
