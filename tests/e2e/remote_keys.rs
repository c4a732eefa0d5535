//! Keys of a foreign issuer, fetched by a real Envoy: one fetch for all workers, new keys when a token names one, and the last good
//! set while the server has nothing good to say.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{AccessToken, IssuedStatus, SigningKey};
use tollgate_tests::client::Client;
use tollgate_tests::envoy::{Bootstrap, Envoy, EnvoyOptions};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::module::{self, Variant};
use tollgate_tests::upstream::Upstream;

const ISSUER: &str = "https://partner.example";

/// The foreign issuer's key server: says what it is told to, and notes who asked.
#[derive(Clone)]
struct KeyServer {
    says: Arc<Mutex<(StatusCode, String)>>,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl KeyServer {
    async fn start(says: String) -> Result<(Self, SocketAddr)> {
        let server = Self { says: Arc::new(Mutex::new((StatusCode::OK, says))), asked: Arc::default() };
        let answering = server.clone();
        let answer = async move |request: Request| {
            let asked = (request.uri().to_string(), request.headers().clone());
            answering.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
            answering.says.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Ok((server, address))
    }

    fn say(&self, status: StatusCode, body: String) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = (status, body);
    }

    fn asked(&self) -> Vec<(String, HeaderMap)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

fn jwks(keys: &[u8]) -> String {
    let keys: Vec<Value> = keys.iter().map(|number| key(*number).public_jwk()).collect();
    json!({ "keys": keys }).to_string()
}

#[expect(clippy::disallowed_methods, reason = "a real Envoy runs on the real clock")]
fn token(number: u8) -> String {
    let now = UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let token = AccessToken {
        issuer: ISSUER,
        subject: "u",
        audience: "api",
        client: "c",
        token_id: "t",
        issued_at: now,
        expires_at: now.plus(600),
        scope: "read",
        roles: &[],
        tenant: None,
        plan: "free",
        session: None,
        status: IssuedStatus::new(0, "https://partner.example/v1/status/0"),
    };
    key(number).issue(token).unwrap()
}

struct Edge {
    envoy: Envoy,
    client: Client,
    _upstream: Upstream,
}

impl Edge {
    async fn start(name: &str, server: SocketAddr, cache_seconds: u64) -> Result<Self> {
        let evidence = Evidence::named(name)?;
        let module = tokio::task::spawn_blocking(|| module::build(Variant::Shipped)).await??;
        let upstream = Upstream::start().await?;
        let remote = json!({ "cluster": "partner", "uri": "https://keys.partner.example/jwks?v=1", "cache_seconds": cache_seconds });
        let plugin = json!({
            "providers": [{ "name": "partner", "issuer": ISSUER, "audiences": ["api"], "keys": { "remote_jwks": remote } }],
            "rules": [{ "match": { "prefix": "/" }, "requires": "token" }],
        });
        let add_cluster = |config: &mut Value| {
            let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
            clusters.push(json!({
                "name": "partner", "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": { "cluster_name": "partner", "endpoints": [] },
            }));
        };
        let bootstrap = Bootstrap::load()?.on_free_ports()?.upstream(upstream.addr())?.edit(add_cluster);
        let bootstrap = bootstrap.endpoint("partner", server)?.module(&module)?.plugin_config(&plugin)?;
        let options = EnvoyOptions { concurrency: 4, ..EnvoyOptions::new(bootstrap) };
        let envoy = Envoy::start(options, &evidence).await?;
        // A connection for each request, so that every worker is met.
        Ok(Self { envoy, client: Client::fresh_connections(), _upstream: upstream })
    }

    async fn status(&self, token: &str) -> Result<u16> {
        Ok(self.client.get(&format!("{}/x", self.envoy.url())).bearer(token).send().await?.status)
    }

    /// Until so many requests in a row, which meet all workers, get this status.
    async fn until_all_say(&self, status: u16, token: &str) {
        let what = format!("{status} from every worker");
        eventually(&what, Duration::from_secs(20), async || {
            for _ in 0..32 {
                let seen = self.status(token).await?;
                ensure!(seen == status, "{seen}");
            }
            Ok(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn the_keys_of_a_foreign_issuer_are_fetched_once_for_all_workers_and_again_for_a_key_that_is_new() {
    let (server, address) = KeyServer::start(jwks(&[1])).await.unwrap();
    let edge = Edge::start("remote-keys-new", address, 300).await.unwrap();
    edge.until_all_say(200, &token(1)).await;
    let asked = server.asked();
    // Two may take themselves for the leader in the moment in which the process starts; five do not.
    assert!((1..=2).contains(&asked.len()), "{asked:?}");
    let (uri, headers) = &asked[0];
    assert_eq!((uri.as_str(), headers["host"].to_str().unwrap()), ("/jwks?v=1", "keys.partner.example"));
    assert!(!headers.contains_key("authorization"), "no credential is sent to others");
    // Nobody has this key: it is refused at once, and looked for.
    assert_eq!(edge.status(&token(9)).await.unwrap(), 401);
    server.say(StatusCode::OK, jwks(&[1, 2]));
    edge.until_all_say(200, &token(2)).await;
    assert_eq!(edge.status(&token(9)).await.unwrap(), 401);
}

#[tokio::test]
async fn a_bad_key_set_replaces_no_good_one() {
    let (server, address) = KeyServer::start(jwks(&[1])).await.unwrap();
    let edge = Edge::start("remote-keys-bad", address, 5).await.unwrap();
    edge.until_all_say(200, &token(1)).await;
    for (status, body) in [
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, jwks(&[])),
        (StatusCode::INTERNAL_SERVER_ERROR, jwks(&[3])),
    ] {
        server.say(status, body.clone());
        let before = server.asked().len();
        // Fetched again before the five seconds are over for which it may be kept. Who asks once more has taken in the answer before.
        eventually("it to be fetched again", Duration::from_secs(60), async || {
            let asked = server.asked().len();
            ensure!(asked > before + 1, "{asked} after {before}");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(edge.status(&token(1)).await.unwrap(), 200, "{status} {body}");
        assert_eq!(edge.status(&token(3)).await.unwrap(), 401, "{status} {body}");
    }
    server.say(StatusCode::OK, jwks(&[3]));
    edge.until_all_say(200, &token(3)).await;
    edge.until_all_say(401, &token(1)).await;
}
