//! Tokens of another issuer at a real Envoy: stock ones are admitted, every hostile one is refused without a trap, and one
//! that is extreme costs the data plane nothing to speak of.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tollgate_tests::client::{Response, raw};
use tollgate_tests::envoy::{Bootstrap, Envoy, EnvoyOptions};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::module::{self, Variant};
use tollgate_tests::upstream::Upstream;

use super::foreign::{Algorithm, ForeignIssuer};
use super::hostile::{good_tokens, hostile_tokens, provider};

#[expect(clippy::disallowed_methods, reason = "real Envoy runs on the real clock")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// An Envoy that takes the foreign issuer's tokens and knows no origin.
async fn edge(evidence: &std::sync::Arc<Evidence>, upstream: &Upstream, plain: bool) -> Envoy {
    let mut provider = provider(ForeignIssuer::shared());
    if plain {
        provider["token_types"] = json!(["JWT"]);
    }
    let plugin = json!({
        "providers": [provider],
        "rules": [
            { "match": { "prefix": "/public/" }, "requires": "none" },
            { "match": { "prefix": "/" }, "requires": { "scopes": ["read"] } },
        ],
    });
    let module = module::build(Variant::Shipped).unwrap();
    let bootstrap = Bootstrap::load().unwrap().on_free_ports().unwrap().upstream(upstream.addr()).unwrap();
    let bootstrap = bootstrap.module(&module).unwrap().plugin_config(&plugin).unwrap();
    Envoy::start(EnvoyOptions::new(bootstrap), evidence).await.unwrap()
}

async fn send(envoy: &Envoy, authorization: &[u8]) -> Response {
    let head = b"GET /x HTTP/1.1\r\nhost: api\r\nauthorization: ";
    let request = [head.as_slice(), authorization, b"\r\n\r\n"].concat();
    raw(envoy.addr(), &request).await.unwrap().response.expect("an answer")
}

/// What the filter counted, by reason; the statistics follow the requests by a tick.
async fn refusals(envoy: &Envoy) -> BTreeMap<String, u64> {
    let stats = envoy.stats("wasmcustom.tollgate_requests_total.outcome.refused").await.unwrap();
    stats
        .into_iter()
        .map(|(name, count)| (name.rsplit('.').next().unwrap_or_default().to_owned(), count))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_jwt_of_another_library_is_admitted() {
    let evidence = Evidence::of_this_test().unwrap();
    let upstream = Upstream::start().await.unwrap();
    let envoy = edge(&evidence, &upstream, true).await;
    let issuer = ForeignIssuer::shared();
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256] {
        let token = issuer.stock_token(algorithm, &issuer.claims(now()));
        let answer = send(&envoy, format!("Bearer {token}").as_bytes()).await;
        let name = algorithm.name();
        assert_eq!(answer.status, 200, "{name}: {answer}");
        let subject = issuer.claims(now())["sub"].clone();
        let headers = answer.json().unwrap()["headers"].clone();
        assert!(headers.as_array().unwrap().contains(&json!(["x-tollgate-subject", subject])), "{headers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_refuses_every_hostile_token_for_the_reason_the_engine_does_and_never_traps() {
    let evidence = Evidence::of_this_test().unwrap();
    let upstream = Upstream::start().await.unwrap();
    let envoy = edge(&evidence, &upstream, false).await;
    let issuer = ForeignIssuer::shared();
    let mut faults = Vec::new();
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    let hostile = hostile_tokens(issuer, now());
    for token in &hostile {
        let answer = send(&envoy, &token.authorization).await;

        if answer.status != token.status {
            faults.push(format!(
                "{}: {} instead of {} ({})",
                token.name, answer.status, token.status, token.why
            ));
        }
        if answer.status == 401 && !token.reasons.contains(&"no_credential") {
            let challenge = answer.header("www-authenticate").unwrap_or_default().to_owned();
            bodies.insert(format!("{challenge}\n{}", answer.text()), token.name.clone());
        }
    }
    assert_eq!(faults, Vec::<String>::new(), "of {}", hostile.len());
    assert_eq!(bodies.len(), 1, "bad tokens can be told apart: {bodies:?}");
    assert_eq!(upstream.requests(), 0, "a hostile token reached the application");
    let total = hostile.len() as u64;
    let counted = eventually("the statistics", Duration::from_secs(5), async || {
        let counted = refusals(&envoy).await;
        if counted.values().sum::<u64>() == total {
            Ok(counted)
        } else {
            Err(format!("{counted:?} of {total}"))
        }
    })
    .await
    .unwrap();
    for reason in counted.keys() {
        let known = hostile.iter().any(|token| token.reasons.contains(&reason.as_str()));
        assert!(known, "{reason} was counted, which no token is refused for");
    }
    for (name, token) in good_tokens(issuer, now()) {
        let answer = send(&envoy, format!("Bearer {token}").as_bytes()).await;
        assert_eq!(answer.status, 200, "{name}: {answer}");
    }
    assert_eq!(envoy.stat("wasm.tollgate.vm_reload").await.unwrap(), 0, "a VM trapped");
    println!("{} hostile tokens refused, {} kinds of reason", hostile.len(), counted.len());
}
