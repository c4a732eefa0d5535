//! One script, several hosts, the same answers: conversations between client, edge and issuer in virtual time.
//!
//! A conversation is a YAML file in `tests/conversations`. Its steps change what the issuer says, let time pass, wait
//! until the edge has taken in what the issuer says now, or send a request and state the answer. It runs against the
//! native engine and against a real Envoy, and every answer must be the one that is stated.

mod envoy;
mod native;
mod origin;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{AccessToken, IssuedStatus};

use origin::{ISSUER, Origin, OriginChange};

/// A script.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Conversation {
    /// What it shows, in a sentence.
    #[serde(rename = "about")]
    _about: String,
    /// What the issuer is like before the edge starts.
    #[serde(default)]
    before: OriginChange,
    /// Changes to `origin` of the filter's configuration.
    #[serde(default)]
    origin: BTreeMap<String, Value>,
    /// Changes to the provider of the filter's configuration.
    #[serde(default)]
    provider: BTreeMap<String, Value>,
    /// Top-level changes to the filter's configuration.
    #[serde(default)]
    config: BTreeMap<String, Value>,
    /// The rules of the filter's configuration.
    rules: Vec<Value>,
    /// Tokens that requests name.
    #[serde(default)]
    tokens: BTreeMap<String, TokenSpec>,
    steps: Vec<Step>,
}

/// A token, made by the issuer when the conversation starts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSpec {
    sub: String,
    #[serde(default = "default_scope")]
    scope: String,
    #[serde(default)]
    roles: Vec<String>,
    /// Its place in status list 0.
    index: u32,
    #[serde(default)]
    sid: Option<String>,
    #[serde(default)]
    tenant: Option<String>,
    /// Seconds it lives.
    #[serde(default = "default_life")]
    lives: u64,
    /// Seconds after the start at which it says it was made.
    #[serde(default)]
    issued: u64,
    /// Signed with the issuer's next key instead of its first.
    #[serde(default)]
    by_next_key: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Step {
    /// The issuer changes.
    Origin(OriginChange),
    /// Both clocks go on by this many seconds.
    AdvanceSeconds(u64),
    /// The edge completes an exchange with the issuer as it is now.
    Settle,
    /// A request, and the answer.
    Ask(Exchange),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    #[serde(default = "default_method")]
    method: String,
    path: String,
    /// The name of a token to send as a bearer.
    #[serde(default)]
    token: Option<String>,
    /// Further headers, in order.
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// How often, with the same answer each time.
    #[serde(default = "once")]
    times: u32,
    status: u16,
    /// The label in the filter's metrics.
    #[serde(default)]
    reason: Option<String>,
    /// Headers of the answer, exactly; `"*"` for any value.
    #[serde(default)]
    answer: BTreeMap<String, String>,
    /// Headers that the application got, exactly.
    #[serde(default)]
    upstream: BTreeMap<String, String>,
    /// Headers that the application did not get.
    #[serde(default)]
    upstream_lacks: Vec<String>,
}

/// What came of a request.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    /// What the application got, if the request went on.
    pub(crate) upstream: Option<BTreeMap<String, String>>,
    /// `outcome.reason`, as counted by the filter.
    pub(crate) counted: String,
}

/// Something that can hold a conversation.
trait Host {
    async fn advance(&mut self, seconds: u64) -> Result<()>;
    async fn settle(&mut self) -> Result<()>;
    async fn request(&mut self, method: &str, path: &str, headers: &[(String, String)]) -> Result<Seen>;
}

fn load(name: &str) -> Result<Conversation> {
    let path: PathBuf = tollgate_tests::workspace_root().join("tests/conversations").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("in {}", path.display()))
}

fn names() -> Result<Vec<String>> {
    let folder = tollgate_tests::workspace_root().join("tests/conversations");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    ensure!(!names.is_empty(), "there are no conversations");
    Ok(names)
}

impl Conversation {
    /// The filter's configuration.
    fn plugin(&self, anchor: &str) -> Value {
        let mut provider = json!({
            "name": "home",
            "issuer": ISSUER,
            "audiences": ["api"],
            "keys": "feed",
            "claim_to_headers": [{ "claim_name": "sub", "header_name": "x-tollgate-subject" }],
        });
        let mut origin = json!({
            "cluster": "issuer",
            "authority": "issuer.test",
            "edge_id": "e",
            "credential": "tge_test",
            "trust_anchor": anchor,
            "poll_interval_ms": 100,
            "long_poll_seconds": 0,
        });
        for (name, value) in &self.provider {
            provider[name] = value.clone();
        }
        for (name, value) in &self.origin {
            origin[name] = value.clone();
        }
        let mut plugin = json!({ "providers": [provider], "origin": origin, "rules": self.rules });
        for (name, value) in &self.config {
            plugin[name] = value.clone();
        }
        plugin
    }

    fn mint(&self, origin: &Origin, start: UnixSeconds) -> BTreeMap<String, String> {
        let mint = |(name, spec): (&String, &TokenSpec)| {
            let issued_at = start.plus(spec.issued);
            let uri = format!("{ISSUER}/v1/status/0");
            let token = AccessToken {
                issuer: ISSUER,
                subject: &spec.sub,
                audience: "api",
                client: "c1",
                token_id: &format!("jti-{name}"),
                issued_at,
                expires_at: issued_at.plus(spec.lives),
                scope: &spec.scope,
                roles: &spec.roles,
                tenant: spec.tenant.as_deref(),
                plan: "free",
                session: Some(spec.sid.as_deref().unwrap_or("s1")),
                status: IssuedStatus::new(spec.index, &uri),
            };
            let key = if spec.by_next_key { &origin.next_key } else { &origin.key };
            (name.clone(), key.issue(token).expect("claims serialise"))
        };
        self.tokens.iter().map(mint).collect()
    }

    /// The issuer it begins with.
    fn issuer(&self, start: UnixSeconds) -> Result<Arc<Mutex<Origin>>> {
        let mut origin = Origin::new(start);
        origin.change(&self.before)?;
        Ok(Arc::new(Mutex::new(origin)))
    }

    async fn hold(
        &self,
        host: &mut impl Host,
        origin: &Arc<Mutex<Origin>>,
        start: UnixSeconds,
    ) -> Result<()> {
        let tokens = self.mint(&origin.lock().expect("not poisoned"), start);
        for (place, step) in self.steps.iter().enumerate() {
            let done = match step {
                Step::Origin(change) => origin.lock().expect("not poisoned").change(change),
                Step::AdvanceSeconds(seconds) => host.advance(*seconds).await,
                Step::Settle => host.settle().await,
                Step::Ask(exchange) => ask(host, exchange, &tokens).await,
            };
            done.with_context(|| format!("step {}: {step:?}", place + 1))?;
        }
        Ok(())
    }
}

async fn ask(host: &mut impl Host, exchange: &Exchange, tokens: &BTreeMap<String, String>) -> Result<()> {
    let mut headers = exchange.headers.clone();
    if let Some(name) = &exchange.token {
        let token = tokens.get(name).with_context(|| format!("there is no token `{name}`"))?;
        headers.push(("authorization".to_owned(), format!("Bearer {token}")));
    }
    for _ in 0..exchange.times {
        let seen = host.request(&exchange.method, &exchange.path, &headers).await?;
        check(exchange, &seen).with_context(|| format!("the answer was {seen:?}"))?;
    }
    Ok(())
}

fn check(exchange: &Exchange, seen: &Seen) -> Result<()> {
    ensure!(seen.status == exchange.status, "status {} instead of {}", seen.status, exchange.status);
    let outcome = if exchange.status == 200 { "admitted" } else { "refused" };
    if let Some(reason) = &exchange.reason {
        ensure!(
            seen.counted == format!("{outcome}.{reason}"),
            "counted as {} instead of {reason}",
            seen.counted
        );
    }
    ensure!(
        seen.upstream.is_some() == (exchange.status == 200),
        "only an admitted request reaches the application"
    );
    let same =
        |wanted: &String, found: Option<&String>| found.is_some_and(|found| wanted == "*" || wanted == found);
    for (name, wanted) in &exchange.answer {
        ensure!(same(wanted, seen.headers.get(name)), "the answer's header {name} is not {wanted}");
    }
    let upstream = seen.upstream.clone().unwrap_or_default();
    for (name, wanted) in &exchange.upstream {
        ensure!(same(wanted, upstream.get(name)), "the application did not get {name}: {wanted}");
    }
    for name in &exchange.upstream_lacks {
        ensure!(!upstream.contains_key(name), "the application got {name}");
    }
    Ok(())
}

fn default_scope() -> String {
    "read write".to_owned()
}

fn default_life() -> u64 {
    600
}

fn default_method() -> String {
    "GET".to_owned()
}

fn once() -> u32 {
    1
}
