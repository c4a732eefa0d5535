//! Status lists: what others than our edges see of a revocation.

use std::collections::BTreeSet;

use tollgate_shared::revocation::StatusIndex;

use super::*;
use crate::config::KeySettings;
use crate::signing_keys::{NewKey, RsaSize};
use crate::status_lists::{WAITERS_MAX, read_statuses};
use crate::store::RevocationOrder;

const LIST: &str = "/v1/status/{list}";

/// The claims of a token, as they are.
fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64ct::Base64UrlUnpadded::decode_vec(claims).unwrap()).unwrap()
}

impl Bench {
    async fn access_token(&self, name: &str) -> String {
        self.login(name).await["access_token"].as_str().unwrap().to_owned()
    }

    async fn revoke_token(&self, token: &str) {
        let form = format!("token={token}&client_id=first-party");
        assert_eq!(self.form("/oauth2/revoke", None, &form).await.status, StatusCode::OK);
    }

    /// The path of the list that a token names, and its place there.
    fn reference(&self, token: &str) -> (String, usize) {
        let status = claims(token)["status"]["status_list"].clone();
        let uri = status["uri"].as_str().unwrap().to_owned();
        let path = uri.strip_prefix(self.app.settings.issuer.as_str()).unwrap().to_owned();
        (path, status["idx"].as_u64().unwrap().try_into().unwrap())
    }

    /// A list, after another library has checked it with the published keys.
    async fn status_list(&self, path: &str) -> Value {
        let answer = self.get(path, None).await;
        assert_eq!(
            (answer.status, answer.header(header::CONTENT_TYPE)),
            (StatusCode::OK, "application/statuslist+jwt")
        );
        let token = String::from_utf8(answer.body).unwrap();
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("statuslist+jwt"));
        let keys = self.get("/.well-known/jwks.json", None).await.json();
        let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).unwrap();
        let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut rules = jsonwebtoken::Validation::new(header.alg);
        rules.validate_exp = false;
        jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap().claims
    }

    async fn revoked_in(&self, path: &str) -> BTreeSet<usize> {
        let list = self.status_list(path).await;
        let statuses = read_statuses(list["status_list"]["lst"].as_str().unwrap(), 1);
        assert_eq!(statuses.len(), 1 << 20);
        (0..statuses.len()).filter(|place| statuses[*place] == 1).collect()
    }
}

#[tokio::test]
async fn a_revoked_token_is_invalid_in_the_list_it_names_and_its_neighbours_are_not() {
    for new_key in [NewKey::EdDsa, NewKey::Es256, NewKey::Rs256(RsaSize::Bits2048)] {
        let with_key = |settings: Settings| {
            let keys = KeySettings { new_key, ..settings.keys.clone() };
            Settings { keys, ..settings }
        };
        let bench = Bench::with(with_key).await;
        bench.user("alice").await;
        let mut tokens = Vec::new();
        for _ in 0..3 {
            tokens.push(bench.access_token("alice").await);
        }
        let (path, place) = bench.reference(&tokens[1]);
        assert!(bench.revoked_in(&path).await.is_empty());
        bench.revoke_token(&tokens[1]).await;
        assert_eq!(bench.revoked_in(&path).await, BTreeSet::from([place]), "{new_key:?}");
        // What is cut off as a whole has no places of which anything is kept.
        bench.send(Method::POST, "/v1/logout-all", Some(&tokens[0]), "", String::new()).await;
        assert_eq!(bench.revoked_in(&path).await, BTreeSet::from([place]));
        let issuer = bench.app.settings.issuer.as_str();
        let list = bench.status_list(&path).await;
        let now = bench.app.feed.now().seconds().0;
        assert_eq!(list["sub"], format!("{issuer}{path}"));
        assert_eq!((&list["iat"], &list["exp"], &list["ttl"]), (&json!(now), &json!(now + 300), &json!(60)));
        assert_eq!(list["status_list"]["bits"], 1);
        let all = list["status_list"]["aggregation_uri"].as_str().unwrap();
        let metadata = bench.get("/.well-known/oauth-authorization-server", None).await.json();
        assert_eq!(metadata["status_list_aggregation_endpoint"], all);
        let all = bench.get(all.strip_prefix(issuer).unwrap(), None).await.json();
        assert_eq!(all, json!({ "status_lists": [format!("{issuer}{path}")] }));
    }
}

#[tokio::test]
async fn a_list_is_made_once_for_all_until_it_says_something_else_or_is_old() {
    let bench = Arc::new(Bench::new().await);
    bench.user("alice").await;
    let tokens = [bench.access_token("alice").await, bench.access_token("alice").await];
    let (path, _) = bench.reference(&tokens[0]);
    bench.revoke_token(&tokens[0]).await;
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (bench, path) = (Arc::clone(&bench), path.clone());
        crowd.spawn(async move { bench.get(&path, None).await.header(header::ETAG).to_owned() });
    }
    let tags: BTreeSet<String> = crowd.join_all().await.into_iter().collect();
    assert_eq!(tags.len(), 1);
    let tag = tags.first().unwrap().clone();
    // Without the database it is served from memory as long as nothing is known to have changed.
    bench.spoil("ALTER TABLE status_blocks RENAME TO elsewhere").await;
    let ask = async || {
        let request = Request::builder().uri(&path).header(header::IF_NONE_MATCH, &tag);
        bench.request(request.body(Body::empty()).unwrap()).await
    };
    let again = ask().await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(again.header(header::CACHE_CONTROL), "public, max-age=60");
    bench.is_declared(&Method::GET, LIST, again.status);
    bench.host.advance(60_000);
    let failed = ask().await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE, "it is old");
    bench.is_declared(&Method::GET, LIST, failed.status);
    bench.spoil("ALTER TABLE elsewhere RENAME TO status_blocks").await;
    let renewed = ask().await;
    assert_eq!(renewed.status, StatusCode::OK);
    let renewed_tag = renewed.header(header::ETAG).to_owned();
    assert_ne!(renewed_tag, tag);
    // What changes nothing in this list leaves it as it is.
    let order = bench.app.revocation_order("session", "s_1", None, None).unwrap();
    bench.app.feed.revoke(&order, None, "test").await.unwrap();
    assert_eq!(bench.get(&path, None).await.header(header::ETAG), renewed_tag);
    bench.revoke_token(&tokens[1]).await;
    assert_ne!(bench.get(&path, None).await.header(header::ETAG), renewed_tag);
    assert_eq!(bench.revoked_in(&path).await.len(), 2);
}

#[tokio::test]
async fn a_list_is_signed_anew_when_another_key_signs() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let token = bench.access_token("alice").await;
    let (path, place) = bench.reference(&token);
    bench.revoke_token(&token).await;
    bench.status_list(&path).await;
    let active = bench.app.keys.signing.view().active().clone();
    bench.app.withdraw_key(&active, "lost", "test").await.unwrap();
    // The key that signed the kept one is published no more.
    assert_eq!(bench.revoked_in(&path).await, BTreeSet::from([place]));
}

#[tokio::test]
async fn what_there_is_not_of_lists_is_said() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let (path, _) = bench.reference(&bench.access_token("alice").await);
    for (path, accept, status) in [
        (path.as_str(), "*/*", StatusCode::OK),
        (path.as_str(), "application/statuslist+cwt, application/*;q=0.5", StatusCode::OK),
        (path.as_str(), "application/statuslist+cwt", StatusCode::NOT_ACCEPTABLE),
        (&format!("{path}?time=1700000000"), "*/*", StatusCode::NOT_IMPLEMENTED),
        (&format!("{path}?time=1&time=2"), "*/*", StatusCode::BAD_REQUEST),
        ("/v1/status/1", "*/*", StatusCode::NOT_FOUND),
        ("/v1/status/00", "*/*", StatusCode::NOT_FOUND),
        ("/v1/status/+0", "*/*", StatusCode::NOT_FOUND),
        ("/v1/status/-1", "*/*", StatusCode::NOT_FOUND),
        ("/v1/status/4294967295", "*/*", StatusCode::NOT_FOUND),
        ("/v1/status/99999999999999", "*/*", StatusCode::NOT_FOUND),
    ] {
        let request = Request::builder().uri(path).header(header::ACCEPT, accept);
        let answer = bench.request(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{path} {accept}");
        bench.is_declared(&Method::GET, LIST, answer.status);
    }
}

/// Has a second list come to be.
async fn second_list(bench: &Bench) {
    bench.spoil("INSERT INTO status_blocks (block, taken_at, expires_at) VALUES (16, 0, 99999999999)").await;
}

#[tokio::test]
async fn a_list_is_not_made_anew_for_what_is_revoked_in_another() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let token = bench.access_token("alice").await;
    let (path, _) = bench.reference(&token);
    second_list(&bench).await;
    let tag = bench.get(&path, None).await.header(header::ETAG).to_owned();
    let order = RevocationOrder::Index(StatusIndex::in_list(1, 5).unwrap());
    bench.app.feed.revoke(&order, None, "test").await.unwrap();
    // Whatever reads the database for a list fails.
    bench.spoil("ALTER TABLE status_blocks RENAME TO elsewhere").await;
    assert_eq!(bench.get(&path, None).await.header(header::ETAG), tag);
    bench.spoil("ALTER TABLE elsewhere RENAME TO status_blocks").await;
    bench.revoke_token(&token).await;
    bench.spoil("ALTER TABLE status_blocks RENAME TO elsewhere").await;
    assert_eq!(bench.get(&path, None).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_list_that_there_is_not_costs_one_look_a_second_whoever_asks() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let (path, _) = bench.reference(&bench.access_token("alice").await);
    assert_eq!(bench.get("/v1/status/1", None).await.status, StatusCode::NOT_FOUND);
    second_list(&bench).await;
    bench.spoil("ALTER TABLE status_blocks RENAME TO elsewhere").await;
    let ask = async |list: &str| bench.get(&format!("/v1/status/{list}"), None).await.status;
    for list in ["1", "2", "4095", "4096", "4294967295"] {
        assert_eq!(ask(list).await, StatusCode::NOT_FOUND, "{list}");
    }
    bench.host.advance(1_000);
    assert_eq!(ask("4095").await, StatusCode::SERVICE_UNAVAILABLE, "it has to be looked");
    assert_eq!(ask("4096").await, StatusCode::NOT_FOUND, "there never is one");
    bench.spoil("ALTER TABLE elsewhere RENAME TO status_blocks").await;
    assert_eq!(ask("1").await, StatusCode::OK);
    assert_eq!(bench.get(&path, None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_wants_another_list_does_not_wait_and_of_a_crowd_beyond_the_limit_each_is_asked_to_come_back() {
    let bench = Arc::new(Bench::new().await);
    bench.user("alice").await;
    let (path, _) = bench.reference(&bench.access_token("alice").await);
    second_list(&bench).await;
    let lists = &bench.app.status_lists;
    let turn = lists.turn(0).await.unwrap();
    assert_eq!(bench.get("/v1/status/1", None).await.status, StatusCode::OK);
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 1..WAITERS_MAX {
        let (bench, path) = (Arc::clone(&bench), path.clone());
        crowd.spawn(async move { bench.get(&path, None).await.status });
    }
    while lists.free_places() > 0 {
        tokio::task::yield_now().await;
    }
    let refused = bench.get(&path, None).await;
    assert_eq!((refused.status, refused.header(header::RETRY_AFTER)), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert_eq!(bench.get("/v1/status/1", None).await.status, StatusCode::OK, "that is in memory");
    drop(turn);
    assert!(crowd.join_all().await.into_iter().all(|status| status == StatusCode::OK));
    assert_eq!(bench.get(&path, None).await.status, StatusCode::OK);
}
