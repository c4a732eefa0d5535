//! What the issuer publishes of itself, and how its OAuth routes answer what they cannot read.

use tollgate_shared::id::IssuerId;
use tollgate_shared::token::{Algorithm, RustCrypto, TokenRules, UntrustedToken};

use super::*;
use crate::oauth::introspection::{ActiveToken, Introspection};

const DOCUMENTS: [&str; 3] = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-protected-resource",
];

#[tokio::test]
async fn documents_are_sent_once() {
    let bench = Bench::new().await;
    for path in DOCUMENTS {
        let first = bench.get(path, None).await;
        assert_eq!((first.status, first.header(header::CONTENT_TYPE)), (StatusCode::OK, "application/json"));
        assert!(first.header(header::CACHE_CONTROL).contains("max-age"));
        let etag = first.header(header::ETAG).to_owned();
        let request = Request::builder().uri(path).header(header::IF_NONE_MATCH, &etag);
        let second = bench.request(request.body(Body::empty()).unwrap()).await;
        assert_eq!((second.status, second.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        assert_eq!(second.header(header::ETAG), etag);
    }
}

#[tokio::test]
async fn documents_are_had_with_the_issuers_path_at_the_end() {
    let issuer = "https://issuer.test/tenants/one";
    let bench = Bench::with(|settings| Settings { issuer: IssuerId::new(issuer).unwrap(), ..settings }).await;
    for path in DOCUMENTS {
        let name = if path.ends_with("resource") { "resource" } else { "issuer" };
        for right in [path.to_owned(), format!("{path}/tenants/one")] {
            assert_eq!(bench.get(&right, None).await.json()[name], issuer, "{right}");
        }
        for wrong in [format!("{path}/tenants"), format!("{path}/tenants/one/"), format!("{path}/")] {
            assert_eq!(bench.get(&wrong, None).await.status, StatusCode::NOT_FOUND, "{wrong}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_form_is_an_oauth_error() {
    let bench = Bench::new().await;
    let long = format!("token={}", "x".repeat(70_000));
    for (kind, body, status) in [
        ("application/json", "{}", StatusCode::BAD_REQUEST),
        ("", "token=x", StatusCode::BAD_REQUEST),
        ("application/x-www-form-urlencoded", "token=%ff", StatusCode::BAD_REQUEST),
        ("application/x-www-form-urlencoded", "token=a&token=b", StatusCode::BAD_REQUEST),
        ("application/x-www-form-urlencoded", long.as_str(), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let answer = bench.send(Method::POST, "/oauth2/revoke", None, kind, body.to_owned()).await;
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!("invalid_request")), "{kind}");
        assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
    }
}

#[tokio::test]
async fn a_token_of_ours_is_told_of_as_it_says() {
    let bench = Bench::new().await;
    let user = bench.user("alice").await;
    let token = bench.login("alice").await["access_token"].as_str().unwrap().to_owned();
    let rules = TokenRules {
        issuer: bench.app.settings.issuer.clone(),
        audiences: vec!["api".to_owned()],
        accept_access_token: true,
        accept_plain: false,
        require_status: true,
        clock_skew_seconds: 0,
    };
    let untrusted = UntrustedToken::parse(token.as_bytes()).unwrap();
    let signed =
        untrusted.verify(&bench.app.keys.signing.view().verifying, &[Algorithm::EdDsa], &RustCrypto).unwrap();
    let claims = signed.live(&rules, bench.host.seconds()).unwrap().claims;
    let told = Introspection::Active(Box::new(ActiveToken::of_claims(&claims, Some("alice".to_owned()))));
    let told = told.to_json();
    for (member, expected) in [
        ("active", json!(true)),
        ("token_type", json!("Bearer")),
        ("sub", json!(user)),
        ("username", json!("alice")),
        ("client_id", json!("first-party")),
        ("aud", json!("api")),
        ("iss", json!(bench.app.settings.issuer.as_str())),
        ("scope", json!("read write")),
        ("roles", json!(["member"])),
        ("exp", json!(claims.expires_at.0)),
        ("jti", json!(claims.token_id.as_str())),
    ] {
        assert_eq!(told[member], expected, "{member}");
    }
}
