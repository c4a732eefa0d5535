//! Who may use which route.

use super::*;
use crate::access::Access;
use crate::routes;

#[tokio::test]
async fn every_route_that_is_not_public_refuses_everyone_else() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let (rest, last) = bench.operator.split_at(bench.operator.len() - 1);
    let stranger = format!("{rest}{}", if last == "x" { "y" } else { "x" });
    bench.user("alice").await;
    let service = bench.confidential("service").await;
    for (method, path, access) in routes() {
        let person = bench.login("alice").await;
        let person_token = format!("Bearer {}", person["access_token"].as_str().unwrap());
        let (operator, edge) = (format!("Bearer {}", bench.operator), format!("Bearer {edge}"));
        let (right, wrong) = match access {
            Access::Public => continue,
            Access::OAuthClient => (&service, &edge),
            Access::Operator(_) => (&operator, &edge),
            Access::Edge => (&edge, &operator),
            Access::User => (&person_token, &operator),
        };
        let case = bench.case(&method, path).await.unwrap_or_else(|| panic!("no case for {method} {path}"));
        let send = |authorization| {
            bench.authorized(method.clone(), &case.uri, authorization, case.kind, case.body.clone())
        };
        let stranger = format!("Bearer {stranger}");
        for authorization in [
            None,
            Some("Bearer garbage"),
            Some("Bearer tgo_00000000_00000000000000000000000000000000"),
            Some("Basic c2VydmljZTp3cm9uZw=="),
            Some(stranger.as_str()),
        ] {
            let answer = send(authorization).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path} {authorization:?}");
            bench.is_declared(&method, path, answer.status);
            // Who comes to an OAuth route with nothing is told how clients authenticate.
            let bearer = authorization.is_some_and(|value| value.starts_with("Bearer"));
            let basic = access == Access::OAuthClient && !bearer;
            let scheme = if basic { "Basic " } else { "Bearer " };
            assert!(answer.header(header::WWW_AUTHENTICATE).starts_with(scheme), "{method} {path}");
            if access == Access::OAuthClient {
                assert_eq!(answer.json(), json!({ "error": "invalid_client" }));
            } else {
                assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json");
            }
        }
        let answer = send(Some(wrong)).await;
        bench.is_declared(&method, path, answer.status);
        match access {
            Access::OAuthClient => {
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{method} {path}");
                assert_eq!(answer.json(), json!({ "error": "unauthorized_client" }));
            }
            // What an operator has is no token at all.
            Access::User => assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}"),
            Access::Public | Access::Operator(_) | Access::Edge => {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
            }
        }
        let answer = send(Some(right)).await;
        bench.is_declared(&method, path, answer.status);
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.status);
    }
}

#[test]
fn what_is_public_is_public_on_purpose() {
    let public: Vec<_> = routes()
        .into_iter()
        .filter(|route| route.2 == Access::Public)
        .map(|(method, path, _)| (method, path))
        .collect();
    let expected = [
        (Method::POST, "/v1/login"),
        (Method::GET, "/.well-known/jwks.json"),
        (Method::GET, "/.well-known/oauth-authorization-server"),
        (Method::GET, "/.well-known/oauth-authorization-server/{*path}"),
        (Method::GET, "/.well-known/openid-configuration"),
        (Method::GET, "/.well-known/openid-configuration/{*path}"),
        (Method::GET, "/.well-known/oauth-protected-resource"),
        (Method::GET, "/.well-known/oauth-protected-resource/{*path}"),
        (Method::GET, "/v1/status"),
        (Method::GET, "/v1/status/{list}"),
        (Method::GET, "/openapi.json"),
        (Method::GET, "/livez"),
        (Method::GET, "/readyz"),
    ];
    assert_eq!(public, expected);
}

#[tokio::test]
async fn an_edge_that_another_process_took_the_credential_from_is_refused_within_a_second() {
    let bench = Bench::new().await;
    let other = bench.another().await;
    for look in [true, false] {
        let edge = bench.edge("eu-1").await;
        let status = async || bench.get("/v1/edge/feed", Some(&edge)).await.status;
        bench.app.look_at_credentials().await.unwrap();
        assert_eq!(status().await, StatusCode::OK);
        bench.host.advance(999);
        other.remove_edge("eu-1", &Actor::command_line()).await.unwrap();
        assert_eq!(status().await, StatusCode::OK, "it is known, and not asked for");
        if look {
            bench.app.look_at_credentials().await.unwrap();
        } else {
            bench.host.advance(2);
        }
        assert_eq!(status().await, StatusCode::UNAUTHORIZED);
    }
    let edge = bench.edge("eu-1").await;
    bench.app.look_at_credentials().await.unwrap();
    assert_eq!(bench.get("/v1/edge/feed", Some(&edge)).await.status, StatusCode::OK);
    bench.app.remove_edge("eu-1", &Actor::command_line()).await.unwrap();
    assert_eq!(
        bench.get("/v1/edge/feed", Some(&edge)).await.status,
        StatusCode::UNAUTHORIZED,
        "here at once"
    );
}

#[tokio::test]
async fn a_withdrawn_credential_is_no_credential() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    assert_eq!(bench.get("/v1/edge/feed", Some(&edge)).await.status, StatusCode::OK);
    let list = bench.get("/v1/admin/edges", Some(&bench.operator)).await.json();
    assert_eq!(list["edges"][0]["id"], "eu-1");
    assert_eq!(list["edges"][0]["seen_at"], START.0 / 1000);
    let again = json!({ "id": "eu-1" });
    assert_eq!(
        bench.post("/v1/admin/edges", Some(&bench.operator), &again).await.status,
        StatusCode::CONFLICT
    );
    let withdraw =
        || bench.send(Method::DELETE, "/v1/admin/edges/eu-1", Some(&bench.operator), "", String::new());
    assert_eq!(withdraw().await.status, StatusCode::NO_CONTENT);
    assert_eq!(withdraw().await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/v1/edge/feed", Some(&edge)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        bench.post("/v1/admin/edges", Some(&bench.operator), &again).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn what_does_not_exist_is_a_problem_too() {
    let bench = Bench::new().await;
    for (method, path, status) in [
        (Method::GET, "/nowhere", StatusCode::NOT_FOUND),
        (Method::GET, "/v1/login", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/v1/admin/users", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = bench.send(method, path, None, "", String::new()).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json");
    }
}

#[tokio::test]
async fn the_key_set_is_sent_once() {
    let bench = Bench::new().await;
    let first = bench.get("/.well-known/jwks.json", None).await;
    assert_eq!(first.header(header::CONTENT_TYPE), "application/jwk-set+json");
    assert!(first.json()["keys"][0].get("d").is_none());
    let etag = first.header(header::ETAG).to_owned();
    let request = Request::builder().uri("/.well-known/jwks.json").header(header::IF_NONE_MATCH, etag);
    let second = bench.request(request.body(Body::empty()).unwrap()).await;
    assert_eq!((second.status, second.body.len()), (StatusCode::NOT_MODIFIED, 0));
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        assert_eq!(bench.get(path, None).await.json()["issuer"], bench.app.settings.issuer.as_str());
    }
}

#[tokio::test]
async fn a_closing_service_is_alive_but_not_ready() {
    let bench = Bench::new().await;
    assert_eq!(bench.get("/readyz", None).await.status, StatusCode::OK);
    bench.app.close();
    assert_eq!(bench.get("/readyz", None).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bench.get("/livez", None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let bench = Bench::with(|settings| Settings { metrics_public: true, ..settings }).await;
    bench.user("alice").await;
    bench.login("alice").await;
    let text = String::from_utf8(bench.get("/metrics", None).await.body).unwrap();
    assert!(text.contains("tollgate_issuer_logins_total{outcome=\"admitted\"} 1"), "{text}");
    assert!(
        text.contains("tollgate_issuer_http_requests_total{route=\"/v1/login\",status=\"200\"} 1"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
}
