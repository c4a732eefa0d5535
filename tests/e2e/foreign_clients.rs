//! Programs on other people's OAuth libraries get along with the issuer as it runs.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64ct::{Base64, Encoding as _};
use serde_json::{Value, json};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::foreign::{ForeignClient, ForeignLogin, ForeignParameters, KeyClient, SecretClient};
use tollgate_tests::issuer::{Issuer, IssuerOptions};
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};
use tollgate_tests::redis_server::{RedisOptions, RedisServer};

use crate::foreign::{Algorithm, encode};

const SCOPE: &str = "read";
const PASSWORD: &str = "correct horse battery";

/// What each program did, in the order in which it does it.
const AUTHLIB: [&str; 9] = [
    "metadata",
    "secret_in_header",
    "secret_in_form",
    "private_keys",
    "replayed_assertion",
    "wrong_secret",
    "scope_that_cannot_be_had",
    "introspection_and_revocation",
    "refresh",
];
const OAUTH4WEBAPI: [&str; 9] = [
    "discovery",
    "secretInHeader",
    "secretInForm",
    "privateKeys",
    "replayedAssertion",
    "wrongSecret",
    "scopeThatCannotBeHad",
    "introspectionAndRevocation",
    "refresh",
];

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_libraries_work_unmodified_on_sqlite() {
    let evidence = Evidence::of_this_test().unwrap();
    let issuer = Issuer::start(IssuerOptions::default(), &evidence).await.unwrap();
    get_along(issuer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_peoples_libraries_work_unmodified_on_postgres_and_redis() {
    let evidence = Evidence::of_this_test().unwrap();
    let postgres = PostgresServer::start(PostgresOptions::default(), &evidence).await.unwrap();
    let redis = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let database = postgres.create_database("tollgate").unwrap();
    let issuer = Issuer::start(IssuerOptions::on(&database, &redis), &evidence).await.unwrap();
    get_along(issuer).await;
}

async fn get_along(issuer: Issuer) {
    issuer.add_user("alice", PASSWORD, "free", &[], &[SCOPE, "write"]).await.unwrap();
    let secret = add_client(&issuer, "service", json!({ "auth": "client_secret" })).await;
    let secret = secret.expect("a client with a secret is told it");
    let secret_client = SecretClient { id: "service".to_owned(), secret };
    let mut key_clients = Vec::new();
    for algorithm in Algorithm::ALL {
        let (client, jwk) = key_client(algorithm);
        let order = json!({ "auth": "private_key_jwt", "jwks": { "keys": [jwk] } });
        assert_eq!(add_client(&issuer, &client.id, order).await, None, "it has no secret");
        key_clients.push(client);
    }
    for (program, expected) in
        [(ForeignClient::Authlib, AUTHLIB), (ForeignClient::Oauth4webapi, OAUTH4WEBAPI)]
    {
        // Each spends the refresh token it is given.
        let refresh_token = issuer.login("alice", PASSWORD).await.unwrap().refresh_token;
        let parameters = ForeignParameters {
            issuer: issuer.issuer().to_owned(),
            base_url: Some(issuer.base_url()),
            audience: "api".to_owned(),
            scope: SCOPE.to_owned(),
            secret_client: secret_client.clone(),
            key_clients: key_clients.clone(),
            login: ForeignLogin { client_id: "first-party".to_owned(), refresh_token },
        };
        let steps = tokio::task::spawn_blocking(move || program.run(&parameters)).await.unwrap();
        let steps = steps.unwrap_or_else(|error| panic!("{error:#}\n{}", issuer.process().logs()));
        let done: Vec<&str> = steps.iter().map(|step| step.step.as_str()).collect();
        assert_eq!(done, expected, "{program:?}");
        let algorithms = steps.iter().find(|step| step.step.to_lowercase().starts_with("private"));
        let algorithms = algorithms.unwrap().result.to_string();
        for algorithm in Algorithm::ALL {
            assert!(algorithms.contains(algorithm.name()), "{program:?}: {algorithms}");
        }
    }
}

/// Adds a client that gets tokens for itself, and gives back its secret if it has one.
async fn add_client(issuer: &Issuer, id: &str, auth: Value) -> Option<String> {
    let mut client = json!({ "id": id, "name": id, "grants": ["client_credentials"], "scopes": [SCOPE] });
    client.as_object_mut().unwrap().extend(auth.as_object().unwrap().clone());
    let added = issuer.operator("POST", "/v1/admin/clients").json(&client).send_ok().await.unwrap();
    added.json_at("/client_secret").unwrap().as_str().map(str::to_owned)
}

/// A client with a new key of this algorithm, and the public half.
fn key_client(algorithm: Algorithm) -> (KeyClient, Value) {
    let kid = format!("key-{}", algorithm.name());
    let (document, mut jwk) = match algorithm {
        Algorithm::EdDsa => {
            let key = Ed25519KeyPair::generate().unwrap();
            let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().as_ref()) });
            (key.to_pkcs8v1().unwrap().as_ref().to_vec(), jwk)
        }
        Algorithm::Es256 => {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let (x, y) = key.public_key().as_ref().strip_prefix(&[4]).unwrap().split_at(32);
            let jwk = json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) });
            (key.to_pkcs8v1().unwrap().as_ref().to_vec(), jwk)
        }
        Algorithm::Rs256 => {
            let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
            let modulus = key.public_key().modulus().big_endian_without_leading_zero().to_vec();
            let document = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap().as_ref().to_vec();
            (document, json!({ "kty": "RSA", "n": encode(&modulus), "e": "AQAB" }))
        }
    };
    jwk["kid"] = json!(kid);
    jwk["alg"] = json!(algorithm.name());
    jwk["use"] = json!("sig");
    let body = Base64::encode_string(&document);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let private_key =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    let id = format!("service-{}", algorithm.name());
    (KeyClient { id, algorithm: algorithm.name().to_owned(), kid, private_key }, jwk)
}
