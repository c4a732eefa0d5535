//! Holds conversations with a real Envoy: the probe build of the module, whose clock a request can set forward.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tollgate_shared::time::{UnixMillis, UnixSeconds};
use tollgate_tests::client::raw;
use tollgate_tests::envoy::{Bootstrap, Envoy, EnvoyOptions};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::module::{self, Variant};
use tollgate_tests::upstream::Upstream;

use super::{Host, Origin, Seen};

struct RealEnvoy {
    envoy: Envoy,
    origin: Arc<Mutex<Origin>>,
    shift: Arc<Mutex<u64>>,
}

#[expect(clippy::disallowed_methods, reason = "real Envoy runs on the real clock")]
fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    UnixMillis(u64::try_from(since.as_millis()).expect("before the end of time"))
}

/// Serves the conversation's issuer over HTTP. Where it does not answer, 503 stands for what Envoy makes of that.
async fn serve(origin: Arc<Mutex<Origin>>, shift: Arc<Mutex<u64>>) -> Result<SocketAddr> {
    let answer = move |request: Request| {
        let (origin, shift) = (Arc::clone(&origin), Arc::clone(&shift));
        async move {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
            let now = UnixMillis(wall().0 + *shift.lock().expect("not poisoned"));
            let answer = origin.lock().expect("not poisoned").answer(&path, &body, now);
            let (status, body) = answer.unwrap_or((503, Vec::new()));
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    Ok(address)
}

impl RealEnvoy {
    async fn probe(&self, command: &str) -> Result<Value> {
        let request = format!(
            "GET /probe HTTP/1.1\r\nhost: probe\r\nx-tollgate-probe: {command}\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(self.envoy.addr(), request.as_bytes()).await?;
        answer.response.context("the probe was not answered")?.json()
    }

    async fn counts(&self, of: &str) -> Result<BTreeMap<String, u64>> {
        let state = self.probe("state").await?;
        Ok(serde_json::from_value(state.get(of).cloned().unwrap_or_default())?)
    }

    fn polls(&self) -> u64 {
        self.origin.lock().expect("not poisoned").polls
    }

    async fn ticks(&self) -> Result<(u64, bool)> {
        let state = self.probe("state").await?;
        let ticks = state["ticks"].as_u64().context("the ticks of the worker")?;
        Ok((ticks, state["busy"].as_bool().context("whether it is busy")?))
    }
}

impl Host for RealEnvoy {
    async fn advance(&mut self, seconds: u64) -> Result<()> {
        let millis = seconds * 1000;
        *self.shift.lock().expect("not poisoned") += millis;
        self.probe(&format!("advance={millis}")).await.map(|_| ())
    }

    async fn settle(&mut self) -> Result<()> {
        let before = self.polls();
        // The first to end may have begun before the latest change; when another begins, its answer was taken in.
        eventually("two exchanges with the issuer", Duration::from_secs(60), async || {
            let now = self.polls();
            if now >= before + 3 { Ok(()) } else { Err(format!("{now} polls, {before} before")) }
        })
        .await?;
        // Whoever polled left it to the worker, which takes it in step by step.
        let (before, _) = self.ticks().await?;
        eventually("the worker to take it in", Duration::from_secs(10), async || {
            let (ticks, is_busy) = self.ticks().await.map_err(|error| error.to_string())?;
            if ticks >= before + 3 && !is_busy { Ok(()) } else { Err(format!("{ticks}, {before} before")) }
        })
        .await
    }

    async fn request(&mut self, method: &str, path: &str, headers: &[(String, String)]) -> Result<Seen> {
        let before = self.counts("requests").await?;
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: api.test\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let response = raw(self.envoy.addr(), request.as_bytes()).await?.response.context("no answer")?;
        let counts = self.counts("requests").await?;
        let counted = counts.iter().find(|(name, count)| before.get(*name) != Some(*count));
        let counted = counted.map(|(name, _)| name.clone()).unwrap_or_default();
        let headers = response
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let headers = headers.collect();
        let upstream = if response.header("x-upstream").is_some() {
            let pairs: Vec<(String, String)> = serde_json::from_value(response.json()?["headers"].clone())?;
            Some(pairs.into_iter().collect())
        } else {
            None
        };
        Ok(Seen { status: response.status, headers, upstream, counted })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_conversation_goes_as_written_with_envoy() {
    let module = module::build(Variant::Probe).unwrap();
    let upstream = Upstream::start().await.unwrap();
    for name in super::names().unwrap() {
        let conversation = super::load(&name).unwrap();
        let evidence = Evidence::named(&format!("conversation-{name}")).unwrap();
        let start = wall().seconds();
        let origin = conversation.issuer(start).unwrap();
        let shift = Arc::new(Mutex::new(0));
        let issuer = serve(Arc::clone(&origin), Arc::clone(&shift)).await.unwrap();
        let plugin = conversation.plugin(&origin.lock().unwrap().anchor());
        let bootstrap = Bootstrap::load().unwrap().on_free_ports().unwrap();
        let bootstrap = bootstrap.upstream(upstream.addr()).unwrap().issuer(issuer).unwrap();
        let bootstrap = bootstrap.module(&module).unwrap().plugin_config(&plugin).unwrap();
        // The filter's answers are compared; whether an unhealthy issuer is still tried is Envoy's own affair.
        let bootstrap = bootstrap.edit(|config| {
            for cluster in config["static_resources"]["clusters"].as_array_mut().unwrap() {
                let cluster = cluster.as_object_mut().unwrap();
                cluster.remove("health_checks");
                cluster.remove("outlier_detection");
            }
        });
        let mut options = EnvoyOptions::new(bootstrap);
        // One worker: the clock is set forward in the VM that the next request meets.
        options.concurrency = 1;
        let envoy = Envoy::start(options, &evidence).await.unwrap();
        let mut host = RealEnvoy { envoy, origin: Arc::clone(&origin), shift };
        let held = conversation.hold(&mut host, &origin, UnixSeconds(start.0)).await;
        if let Err(error) = held {
            evidence.keep();
            panic!("{name}: {error:?}\n{}", host.envoy.logs());
        }
    }
}
