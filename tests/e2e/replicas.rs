//! Two processes of the issuer on one PostgreSQL and one Redis are one issuer: what one is told, the other knows.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_tests::client::{Client, Response};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions};
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};
use tollgate_tests::redis_server::{RedisOptions, RedisServer};
use tollgate_tests::stack::{Stack, StackOptions};

const PASSWORD: &str = "correct horse battery";
const ROUNDS: usize = 20;
const FAILURES_MAX: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_are_one_issuer() {
    let evidence = Evidence::of_this_test().unwrap();
    let postgres = PostgresServer::start(PostgresOptions::default(), &evidence).await.unwrap();
    let redis = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let database = postgres.create_database("tollgate").unwrap();
    let issuer = IssuerOptions::on(&database, &redis)
        // On a busy machine an answer may come late, and then each replica would count for itself.
        .with("REDIS__TIMEOUT_MS", "10000")
        .with("THROTTLE__ACCOUNT_FAILURES", &FAILURES_MAX.to_string())
        .with("THROTTLE__ACCOUNT_FAILURES_MAX", &FAILURES_MAX.to_string());
    let options = StackOptions { issuer, ..StackOptions::default() };
    let options = options.edit_plugin(|plugin| plugin["rules"][1]["quotas"] = json!([]));
    // The edge polls this one, and everything is told to the other.
    let polled = Stack::start_with(options, evidence).await.unwrap();
    let other = polled.issuer.start_replica("other").await.unwrap();
    assert_eq!(polled.issuer.trust_anchor(), other.trust_anchor());
    other.add_user("alice", PASSWORD, "free", &[], &["read"]).await.unwrap();
    other.add_user("bob", PASSWORD, "free", &[], &["read"]).await.unwrap();

    a_revocation_at_one_is_served_by_the_other(&polled, &other).await;
    a_session_goes_on_at_either(&polled, &other).await;
    failures_at_one_count_at_the_other(&polled.issuer, &other).await;
}

#[expect(clippy::disallowed_methods, reason = "the time until a refusal is what is measured")]
async fn a_revocation_at_one_is_served_by_the_other(polled: &Stack, other: &Issuer) {
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        // Neither process is the one that revokes for what it has issued itself only.
        let (signed_by, revoked_at) = if round % 2 == 0 { (other, other) } else { (&polled.issuer, other) };
        let token = signed_by.login("alice", PASSWORD).await.unwrap().access_token;
        assert_eq!(polled.get("/x", &token).await.unwrap().status, 200, "round {round}");
        revoked_at.revoke_token(&token).await.unwrap();
        let acknowledged = Instant::now();
        while polled.get("/x", &token).await.unwrap().status != 401 {
            assert!(
                acknowledged.elapsed() < Duration::from_secs(1),
                "round {round}: admitted after a second"
            );
        }
        took.push(acknowledged.elapsed());
    }
    took.sort();
    println!(
        "revoked at one replica -> refused at the edge of the other: median {:?}, maximum {:?} of {ROUNDS}",
        took[ROUNDS / 2],
        took[ROUNDS - 1]
    );
}

async fn a_session_goes_on_at_either(polled: &Stack, other: &Issuer) {
    let text = |answer: &Value, name: &str| answer[name].as_str().unwrap().to_owned();
    let mut refresh_token = polled.issuer.login("alice", PASSWORD).await.unwrap().refresh_token;
    let mut spent = Vec::new();
    for issuer in [other, &polled.issuer, other, &polled.issuer] {
        let answer = issuer.refresh(&refresh_token).await.unwrap();
        spent.push(std::mem::replace(&mut refresh_token, text(&answer, "refresh_token")));
        let token = text(&answer, "access_token");
        assert_eq!(polled.get("/x", &token).await.unwrap().status, 200);
    }
    // A retry at the other replica gets the same child: its derivation is shared, too.
    let first = other.refresh(&refresh_token).await.unwrap();
    let again = polled.issuer.refresh(&refresh_token).await.unwrap();
    assert_eq!(text(&first, "refresh_token"), text(&again, "refresh_token"));
    // Reuse that one replica sees ends the session everywhere.
    other.refresh(&spent[0]).await.unwrap_err();
    polled.issuer.refresh(&text(&first, "refresh_token")).await.unwrap_err();
    let token = text(&first, "access_token");
    eventually("the session's token to be refused", Duration::from_secs(5), async || {
        match polled.get("/x", &token).await.unwrap().status {
            401 => Ok(()),
            status => Err(status),
        }
    })
    .await
    .unwrap();
}

async fn failures_at_one_count_at_the_other(one: &Issuer, other: &Issuer) {
    let client = Client::new();
    let attempt = async |issuer: &Issuer, password: &str| -> Response {
        let url = format!("{}/v1/login", issuer.base_url());
        let login = json!({ "username": "bob", "password": password });
        client.post(&url).json(&login).send().await.unwrap()
    };
    assert_eq!(attempt(other, PASSWORD).await.status, 200);
    let mut wrong = Vec::new();
    for _ in 0..FAILURES_MAX {
        wrong.push(attempt(one, "wrong horse battery").await);
    }
    for issuer in [one, other] {
        assert_eq!(issuer.metric("tollgate_issuer_throttle_fallbacks_total", "").await.unwrap(), 0);
    }
    // The right one is refused like a wrong one, where nothing had failed.
    let locked = attempt(other, PASSWORD).await;
    for refused in wrong.iter().chain([&locked]) {
        assert_eq!((refused.status, &refused.body), (401, &locked.body));
    }
    other.login("alice", PASSWORD).await.unwrap();
}
