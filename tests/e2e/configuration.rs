//! A configuration that cannot be acted upon is refused by a real Envoy with a message that names the key.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate_tests::client::Client;
use tollgate_tests::envoy::{Bootstrap, Envoy, EnvoyOptions};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::module::{self, Variant};

/// RFC 8032's first test key.
const ANCHOR: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn good() -> Value {
    json!({
        "providers": [{ "name": "home", "issuer": "https://i", "audiences": ["api"], "keys": "feed" }],
        "origin": { "cluster": "issuer", "authority": "i", "edge_id": "e", "credential": "c", "trust_anchor": ANCHOR },
        "rules": [{ "match": { "prefix": "/" }, "requires": "token" }],
    })
}

fn bootstrap() -> Bootstrap {
    let module = module::build(Variant::Shipped).unwrap();
    Bootstrap::load().unwrap().on_free_ports().unwrap().module(&module).unwrap()
}

#[test]
fn envoy_refuses_a_bad_configuration_and_names_the_key() {
    let set = |pointer: &str, value: Value| {
        let mut config = good();
        *config.pointer_mut(pointer).unwrap() = value;
        config.to_string()
    };
    let add = |pointer: &str, name: &str, value: Value| {
        let mut config = good();
        config.pointer_mut(pointer).unwrap()[name] = value;
        config.to_string()
    };
    let without = |name: &str| {
        let mut config = good();
        config.as_object_mut().unwrap().remove(name);
        config.to_string()
    };
    for (text, key, message) in [
        (add("/rules/0", "reqires", json!("none")), "rules[0].reqires", "unknown field `reqires`"),
        (add("", "rule", json!([])), "rule", "unknown field `rule`"),
        (
            set("/rules/0/requires", json!({ "scope": ["read"] })),
            "rules[0].requires.scope",
            "unknown field `scope`",
        ),
        (set("/rules/0/requires", json!("nothing")), "rules[0].requires", "unknown variant `nothing`"),
        (set("/rules", json!([])), "rules", "needs 1 to 256 rules"),
        (without("rules"), "configuration", "missing field `rules`"),
        (set("/providers/0/audiences", json!("api")), "providers[0].audiences", "invalid type: string"),
        (set("/origin/trust_anchor", json!("AAAA")), "origin.trust_anchor", "is not an Ed25519 public key"),
        (
            set("/providers/0/keys", json!({ "inline_jwks": "{}" })),
            "providers[0].keys.inline_jwks",
            "no `keys` array",
        ),
        (
            set("/providers/0/keys", json!({ "inline": "{}" })),
            "providers[0].keys.inline",
            "unknown variant `inline`",
        ),
        (without("origin"), "providers[0].keys", "`feed` needs an `origin`"),
        ("{".to_owned(), "configuration", "EOF"),
        (String::new(), "configuration", "is empty"),
    ] {
        let output = Envoy::validate(&bootstrap().plugin_text(&text).unwrap()).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "Envoy took {text}");
        let line = said
            .lines()
            .find(|line| line.contains("configuration refused"))
            .unwrap_or_else(|| panic!("{text}: {said}"));
        assert!(line.contains(&format!("configuration refused: {key}: ")), "{key} is not named in: {line}");
        assert!(line.contains(message), "`{message}` is not in: {line}");
    }
    let output = Envoy::validate(&bootstrap().plugin_config(&good()).unwrap()).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_envoy_does_not_know_is_named_in_its_log_and_protected_routes_stay_closed() {
    let evidence = Evidence::of_this_test().unwrap();
    let mut config = good();
    config["origin"]["cluster"] = json!("isuer");
    let envoy = Envoy::start(EnvoyOptions::new(bootstrap().plugin_config(&config).unwrap()), &evidence)
        .await
        .unwrap();
    eventually("the message", Duration::from_secs(10), async || {
        let logs = envoy.logs();
        if logs.contains("cluster `isuer`: the host knows no such cluster") { Ok(()) } else { Err(logs) }
    })
    .await
    .unwrap();
    assert_eq!(Client::new().get(&format!("{}/x", envoy.url())).send().await.unwrap().status, 503);
}
