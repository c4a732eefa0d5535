//! Quota batches.

use super::*;

fn batch(edge: &str, sequence: u64, wants: u64) -> Value {
    let bucket = json!({ "quota": "api", "issuer": "http://127.0.0.1:8700", "subject": "u_unknown" });
    json!({
        "edge": edge,
        "epoch": "1",
        "sequence": sequence,
        "wants": [{ "bucket": bucket, "units": wants, "held": 0 }],
    })
}

fn units(answer: &Answer) -> u64 {
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json());
    answer.json()["grants"].as_array().unwrap().iter().map(|grant| grant["units"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_batch_is_applied_once_and_answered_alike() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let first = bench.post("/v1/edge/quota", Some(&edge), &batch("eu-1", 5, 10)).await;
    assert_eq!(units(&first), 10);
    let again = bench.post("/v1/edge/quota", Some(&edge), &batch("eu-1", 5, 10)).await;
    assert_eq!(again.body, first.body);
    let lower = bench.post("/v1/edge/quota", Some(&edge), &batch("eu-1", 4, 10)).await;
    assert_eq!(lower.status, StatusCode::CONFLICT);
    assert!(lower.json()["type"].as_str().unwrap().ends_with("#stale-sequence"));
    let next = bench.post("/v1/edge/quota", Some(&edge), &batch("eu-1", 6, 1)).await;
    assert_eq!(next.json()["grants"][0]["remaining"], 100 - 10 - 1);
}

#[tokio::test]
async fn two_edges_never_get_more_than_the_limit() {
    let bench = Bench::new().await;
    let edges = [("eu-1", bench.edge("eu-1").await), ("eu-2", bench.edge("eu-2").await)];
    let mut granted = 0;
    for sequence in 1..=60 {
        for (id, credential) in &edges {
            granted += units(&bench.post("/v1/edge/quota", Some(credential), &batch(id, sequence, 7)).await);
        }
    }
    assert_eq!(granted, 100);
    // What one gives back, the other may have; what it does not have, it cannot give back.
    let bucket = json!({ "quota": "api", "issuer": "http://127.0.0.1:8700", "subject": "u_unknown" });
    let window = START.0 / 1000 / 3600 * 3600;
    let usage = json!([{ "bucket": bucket, "window": window, "allowed": 1, "denied": 2 }]);
    let returns = json!([{ "bucket": bucket, "window": window, "units": 1_000_000 }]);
    let body = json!({ "edge": "eu-1", "epoch": "1", "sequence": 61, "usage": usage, "returns": returns });
    bench.post("/v1/edge/quota", Some(&edges[0].1), &body).await;
    let mut regranted = 0;
    for sequence in 61..=200 {
        regranted +=
            units(&bench.post("/v1/edge/quota", Some(&edges[1].1), &batch("eu-2", sequence, 7)).await);
    }
    assert!(regranted > 0 && regranted < 100, "{regranted}");
    // The next window has the whole limit again.
    bench.host.advance(3_600_000);
    assert_eq!(units(&bench.post("/v1/edge/quota", Some(&edges[0].1), &batch("eu-1", 62, 25)).await), 25);
}

#[tokio::test]
async fn the_limit_is_that_of_the_users_plan() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let user = json!({ "username": "vip", "password": PASSWORD, "plan": "vip" });
    let id = bench.post("/v1/admin/users", Some(&bench.operator), &user).await.json()["id"].clone();
    let mut body = batch("eu-1", 1, 10);
    body["wants"][0]["bucket"]["subject"] = id.clone();
    assert_eq!(bench.post("/v1/edge/quota", Some(&edge), &body).await.json()["grants"][0]["limit"], 10_000);
    body["sequence"] = json!(2);
    body["wants"][0]["bucket"]["issuer"] = json!("https://other.example");
    assert_eq!(bench.post("/v1/edge/quota", Some(&edge), &body).await.json()["grants"][0]["limit"], 100);
}

#[tokio::test]
async fn a_faulty_batch_is_told_which_entry_is_wrong() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let other = bench.post("/v1/edge/quota", Some(&edge), &batch("eu-2", 1, 1)).await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    let mut empty = batch("eu-1", 1, 1);
    empty["wants"][0]["bucket"] = json!({});
    let mut long = batch("eu-1", 1, 1);
    long["wants"] = Value::Array(vec![long["wants"][0].clone(); 1001]);
    for (body, expected) in [(empty, "wants[0].bucket: "), (long, "wants: more than 1000")] {
        let answer = bench.post("/v1/edge/quota", Some(&edge), &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(expected), "{:?}", answer.json());
    }
}
