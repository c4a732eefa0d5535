//! What a configuration may say, and which key an error names.

use tollgate_shared::token::Algorithm;

use super::*;

const ANCHOR: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

fn good() -> serde_json::Value {
    serde_json::json!({
        "providers": [{ "name": "home", "issuer": "https://i", "audiences": ["api"], "keys": "feed" }],
        "origin": { "cluster": "issuer", "authority": "i", "edge_id": "e", "credential": "c", "trust_anchor": ANCHOR },
        "rules": [{ "match": { "template": "/u/{subject}" }, "requires": { "owner": "subject" } }],
    })
}

fn parse(config: &serde_json::Value) -> Result<Config, ConfigError> {
    Config::parse(config.to_string().as_bytes())
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = parse(&good()).unwrap();
    let (provider, origin) = (&config.providers[0], config.origin.as_ref().unwrap());
    assert_eq!(provider.algorithms, [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256]);
    assert_eq!(provider.rules.clock_skew_seconds, 60);
    assert!(provider.rules.require_status && !provider.rules.accept_plain && !provider.forward);
    let bearer = TokenHeader { name: "authorization".to_owned(), value_prefix: "Bearer ".to_owned() };
    assert_eq!(provider.from_headers, [bearer]);
    assert_eq!((origin.poll_interval_ms, origin.long_poll_seconds), (1000, 20));
    assert_eq!((origin.stale_after_seconds, origin.refuse_after_seconds), (30, 300));
    assert_eq!(config.rules[0].when_stale, WhenStale::Grace);
    assert_eq!(config.ratelimit_headers, RatelimitHeaders::Ietf);
    let mut foreign = good();
    foreign["providers"][0]["keys"] =
        serde_json::json!({ "remote_jwks": { "cluster": "f", "uri": "https://f.example:8443/keys?a=b" } });
    let KeySource::Remote(remote) = parse(&foreign).unwrap().providers[0].keys.clone() else {
        panic!("remote")
    };
    assert_eq!((remote.authority.as_str(), remote.path.as_str()), ("f.example:8443", "/keys?a=b"));
    assert_eq!((remote.cache_seconds, remote.refuse_after_seconds), (300, 3_600));
}

#[test]
fn every_check_names_its_key() {
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let inline = |name: &str, issuer: &str| serde_json::json!({ "name": name, "issuer": issuer, "audiences": ["a"], "keys": { "inline_jwks": key } });
    let home = good()["providers"][0].clone();
    let rule = |field: &str, value: serde_json::Value| {
        let mut rule = serde_json::json!({ "match": { "prefix": "/" }, "requires": "token" });
        rule[field] = value;
        serde_json::json!([rule])
    };
    use serde_json::json;
    let remote = |field: &str, value: serde_json::Value| {
        let mut remote = json!({ "cluster": "c", "uri": "https://f/k" });
        remote[field] = value;
        json!({ "remote_jwks": remote })
    };
    for (pointer, name, value, path) in [
        // Found by fuzzing: a key without a name left the path empty.
        ("", "", json!(1), "configuration"),
        ("", "providers", json!([]), "providers"),
        ("", "providers", json!([inline("a", "i"), inline("a", "j")]), "providers[1].name"),
        ("", "providers", json!([inline("a", "i"), inline("b", "i")]), "providers[1].issuer"),
        ("", "realm", json!("a\"b"), "realm"),
        ("/providers/0", "name", json!(""), "providers[0].name"),
        (
            "/providers/0",
            "keys",
            json!({ "remote_jwks": { "cluster": "c" } }),
            "providers[0].keys.remote_jwks",
        ),
        ("/providers/0", "keys", remote("uri", json!("ftp://f/k")), "providers[0].keys.remote_jwks.uri"),
        ("/providers/0", "keys", remote("uri", json!("https://f")), "providers[0].keys.remote_jwks.uri"),
        (
            "/providers/0",
            "keys",
            remote("uri", json!("https://u:p@f/k")),
            "providers[0].keys.remote_jwks.uri",
        ),
        ("/providers/0", "keys", remote("uri", json!("https://f/k#a")), "providers[0].keys.remote_jwks.uri"),
        ("/providers/0", "keys", remote("uri", json!("https://f/k k")), "providers[0].keys.remote_jwks.uri"),
        ("/providers/0", "keys", remote("cluster", json!("")), "providers[0].keys.remote_jwks.cluster"),
        (
            "/providers/0",
            "keys",
            remote("cache_seconds", json!(4)),
            "providers[0].keys.remote_jwks.cache_seconds",
        ),
        (
            "/providers/0",
            "keys",
            remote("refuse_after_seconds", json!(299)),
            "providers[0].keys.remote_jwks.refuse_after_seconds",
        ),
        ("/providers/0", "issuer", json!(""), "providers[0].issuer"),
        ("/providers/0", "audiences", json!([]), "providers[0].audiences"),
        ("/providers/0", "algorithms", json!(["EdDSA", "HS256"]), "providers[0].algorithms[1]"),
        ("/providers/0", "algorithms", json!([]), "providers[0].algorithms"),
        ("/providers/0", "token_types", json!([]), "providers[0].token_types"),
        ("/providers/0", "token_types", json!(["jwt"]), "providers[0].token_types[0]"),
        ("/providers/0", "clock_skew_seconds", json!(301), "providers[0].clock_skew_seconds"),
        ("/providers/0", "clock_skew_seconds", json!("60"), "providers[0].clock_skew_seconds"),
        ("/providers/0", "from_headers", json!([]), "providers[0].from_headers"),
        ("/providers/0", "from_headers", json!([{ "name": ":path" }]), "providers[0].from_headers[0].name"),
        (
            "/providers/0",
            "claim_to_headers",
            json!([{ "claim_name": "sub", "header_name": "Host" }]),
            "providers[0].claim_to_headers[0].header_name",
        ),
        (
            "/providers/0",
            "claim_to_headers",
            json!([{ "claim_name": "sub", "header_name": "x_user" }]),
            "providers[0].claim_to_headers[0].header_name",
        ),
        (
            "/providers/0",
            "claim_to_headers",
            json!([{ "claim_name": "", "header_name": "x-user" }]),
            "providers[0].claim_to_headers[0].claim_name",
        ),
        (
            "/providers/0",
            "claim_to_headers",
            json!([{ "claim_name": "a", "header_name": "x-a" }, { "claim_name": "b", "header_name": "X-A" }]),
            "providers[0].claim_to_headers[1].header_name",
        ),
        ("/providers/0", "forward_payload_header", json!("a b"), "providers[0].forward_payload_header"),
        ("/providers/0", "keys", json!({ "inline_jwks": "{\"keys\":[]}" }), "providers[0].keys.inline_jwks"),
        ("/origin", "cluster", json!(""), "origin.cluster"),
        ("/origin", "authority", json!("a b"), "origin.authority"),
        ("/origin", "edge_id", json!(""), "origin.edge_id"),
        ("/origin", "credential", json!("a b"), "origin.credential"),
        ("/origin", "trust_anchor", json!("x"), "origin.trust_anchor"),
        ("/origin", "poll_interval_ms", json!(99), "origin.poll_interval_ms"),
        ("/origin", "long_poll_seconds", json!(61), "origin.long_poll_seconds"),
        ("/origin", "long_poll_seconds", json!(30), "origin.stale_after_seconds"),
        ("/origin", "stale_after_seconds", json!(301), "origin.stale_after_seconds"),
        ("/origin", "refuse_after_seconds", json!(86_401), "origin.refuse_after_seconds"),
        ("", "rules", json!([]), "rules"),
        ("/rules/0", "match", json!({}), "rules[0].match"),
        ("/rules/0", "match", json!({ "path": "/", "prefix": "/" }), "rules[0].match"),
        ("/rules/0/match", "template", json!("/**/x"), "rules[0].match.template"),
        ("/rules/0/match", "template", json!("/{user}"), "rules[0].match.template"),
        ("/rules/0/match", "template", json!("x"), "rules[0].match.template"),
        ("/rules/0/match", "methods", json!(["get"]), "rules[0].match.methods"),
        ("/rules/0/match", "methods", json!([]), "rules[0].match.methods"),
        ("/rules/0", "requires", json!({ "unless_role": "x" }), "rules[0].requires.unless_role"),
        ("/rules/0", "requires", json!("token"), "rules[0].requires.owner"),
        (
            "/rules/0",
            "requires",
            json!({ "scopes": ["a b"], "owner": "subject" }),
            "rules[0].requires.scopes",
        ),
        ("", "rules", rule("requires", json!({ "owner": "subject" })), "rules[0].requires.owner"),
        ("", "rules", rule("requires", json!({ "roles": [""] })), "rules[0].requires.roles"),
        ("", "rules", rule("quotas", json!([{ "name": "" }])), "rules[0].quotas[0].name"),
        ("", "rules", rule("quotas", json!([{ "name": "a" }, { "name": "a" }])), "rules[0].quotas[1].name"),
        ("", "rules", rule("quotas", json!([{ "name": "a", "cost": 0 }])), "rules[0].quotas[0].cost"),
        ("", "rules", rule("when_stale", json!("anonymous")), "rules[0].when_stale"),
        ("", "rules", rule("when_stale", json!("maybe")), "rules[0].when_stale"),
    ] {
        let mut config = good();
        config.pointer_mut(pointer).unwrap()[name] = value;
        let error = parse(&config).expect_err(&config.to_string());
        assert_eq!(error.path, path, "{error}");
    }
    let mut two_feeds = good();
    let mut second = home.clone();
    second["name"] = json!("b");
    second["issuer"] = json!("j");
    two_feeds["providers"] = json!([home, second]);
    assert_eq!(parse(&two_feeds).unwrap_err().path, "providers[1].keys");
}

#[test]
fn what_needs_an_origin_is_refused_without_one() {
    for (name, value, path) in [
        ("quotas", serde_json::json!([{ "name": "api" }]), "rules[0].quotas"),
        ("when_stale", serde_json::json!("deny"), "rules[0].when_stale"),
    ] {
        let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let mut config = good();
        config.as_object_mut().unwrap().remove("origin");
        config["providers"][0]["keys"] = serde_json::json!({ "inline_jwks": key });
        parse(&config).unwrap();
        config["rules"][0][name] = value;
        assert_eq!(parse(&config).unwrap_err().path, path);
    }
}

#[test]
fn a_credential_is_not_printed() {
    let mut config = good();
    config["origin"]["credential"] = serde_json::json!("tge_canary");
    assert!(!format!("{:?}", parse(&config).unwrap()).contains("canary"));
}
