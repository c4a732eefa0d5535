//! What running edges say of themselves, and how soon they enforce what is revoked.

use tollgate_shared::revocation::Position;

use super::*;
use crate::breaker::BreakerState;
use crate::heartbeats::Heartbeat;
use crate::propagation::InstanceKey;

const HEARTBEAT: &str = "/v1/edge/heartbeat";

/// A report of a process that has no state yet.
pub(super) fn beat(edge: &str, instance: &str) -> Value {
    json!({
        "edge": edge, "instance": instance.repeat(16), "host": "envoy", "version": "0.1.0", "workers": 5,
        "epoch": null, "position": null, "enforced": null, "enforced_ago_ms": null, "state_age_ms": null,
        "issuer_state": "closed",
    })
}

impl Bench {
    /// The same of one that enforces everything up to a position.
    fn beat_at(&self, instance: &str, enforced: u64, ago_ms: u64) -> Value {
        let mut report = beat("eu-1", instance);
        report["epoch"] = self.app.feed.epoch().to_hex().into();
        report["position"] = (enforced + 1).into();
        report["enforced"] = enforced.into();
        report["enforced_ago_ms"] = ago_ms.into();
        report["state_age_ms"] = 800.into();
        report
    }

    async fn beats(&self, edge: &str, report: &Value) {
        let answer = self.post(HEARTBEAT, Some(edge), report).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json());
        assert_eq!(answer.json(), json!({ "interval_seconds": 10, "ttl_seconds": 30 }));
    }

    async fn revoke_something(&self) -> u64 {
        let order = self.app.revocation_order("session", "s_1", None, None).unwrap();
        self.app.feed.revoke(&order, None, "test").await.unwrap().0
    }

    /// The value of a metric without labels.
    async fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.get("/metrics", Some(&self.operator)).await.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("tollgate_issuer_{name} ")));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    async fn instances(&self) -> Vec<Value> {
        let shown = self.get("/v1/admin/edges", Some(&self.operator)).await.json();
        shown["edges"][0]["instances"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn operators_see_what_each_process_of_an_edge_said_last() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let position = bench.revoke_something().await;
    bench.beats(&edge, &bench.beat_at("0a", position - 1, 0)).await;
    bench.beats(&edge, &beat("eu-1", "0b")).await;
    bench.host.advance(1_500);
    let shown = bench.instances().await;
    assert_eq!(shown.len(), 2);
    let start = START.0 / 1000;
    assert_eq!(
        shown[0],
        json!({
            "instance": "0a".repeat(16), "host": "envoy", "version": "0.1.0", "workers": 5, "position": position,
            "enforced": position - 1, "lag": 1, "state_age_ms": 2_300, "issuer_state": "closed",
            "seen_at": start, "live": true,
        })
    );
    assert_eq!(
        (&shown[1]["enforced"], &shown[1]["lag"], &shown[1]["live"]),
        (&Value::Null, &Value::Null, &json!(true))
    );
    // Another replica knows it once it is written, and so does the command line; also when it is dead, for a day.
    bench.app.keep_heartbeats().await.unwrap();
    let other = bench.another().await;
    let edges = other.edges().await.unwrap();
    assert_eq!(edges[0].instances.len(), 2);
    bench.host.advance(30_000);
    bench.beats(&edge, &bench.beat_at("0b", position, 0)).await;
    let shown = bench.instances().await;
    assert_eq!(
        (&shown[0]["live"], &shown[1]["live"], &shown[1]["lag"]),
        (&json!(false), &json!(true), &json!(0))
    );
    bench.app.keep_heartbeats().await.unwrap();
    bench.host.advance(86_400_000 - 32_000);
    bench.app.keep_house().await.unwrap();
    assert_eq!(bench.instances().await.len(), 2);
    bench.host.advance(2_000);
    bench.app.keep_house().await.unwrap();
    let left = bench.app.store.heartbeats(UnixMillis(0)).await.unwrap();
    assert_eq!(left.len(), 1, "what was seen a day ago is removed");
}

#[tokio::test]
async fn an_edge_speaks_for_itself_and_in_bounds() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    bench.edge("eu-2").await;
    let answer = bench.post(HEARTBEAT, Some(&edge), &beat("eu-2", "00")).await;
    assert_eq!(
        (answer.status, &answer.json()["title"]),
        (StatusCode::FORBIDDEN, &json!("Credential is another edge's"))
    );
    for (member, value) in [
        ("instance", json!("0A".repeat(16))),
        ("instance", json!("00")),
        ("host", json!("")),
        ("host", json!("x".repeat(65))),
        ("version", json!("0 1")),
        ("workers", json!(-1)),
        ("epoch", json!("zz")),
        ("enforced", json!("1")),
        ("issuer_state", json!("broken")),
        ("colour", json!("red")),
    ] {
        let mut report = beat("eu-1", "00");
        report[member] = value.clone();
        let answer = bench.post(HEARTBEAT, Some(&edge), &report).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{member} {value}");
        assert!(answer.json()["detail"].as_str().unwrap().starts_with(member), "{member} {value}");
    }
    assert!(bench.instances().await.is_empty());
}

#[tokio::test]
async fn of_an_edge_with_too_many_processes_those_heard_of_last_are_kept() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    for number in 0..70_u8 {
        bench.host.advance(1_000);
        bench.beats(&edge, &beat("eu-1", &format!("{number:02x}"))).await;
        if number % 10 == 0 {
            bench.app.keep_heartbeats().await.unwrap();
        }
    }
    bench.app.keep_heartbeats().await.unwrap();
    let shown = bench.instances().await;
    assert_eq!(shown.len(), 64);
    assert_eq!(shown[0]["instance"], "06".repeat(16));
}

#[tokio::test]
async fn what_hundreds_of_processes_say_is_kept_and_only_an_edge_with_too_many_is_thinned_out() {
    let bench = Bench::new().await;
    let beat = |seen_at: u64| Heartbeat {
        host: "envoy".to_owned(),
        version: "0.1.0".to_owned(),
        workers: 2,
        epoch: None,
        position: None,
        enforced: seen_at.is_multiple_of(2).then_some(Position(seen_at)),
        enforced_at: UnixMillis(seen_at),
        state_as_of: None,
        issuer_state: BreakerState::Closed,
        seen_at: UnixMillis(seen_at),
    };
    let who =
        |edge: &str, number: u64| InstanceKey { edge: edge.to_owned(), instance: format!("{number:032x}") };
    // That of too many begins in one statement and ends in the next.
    let mut beats: Vec<_> =
        (1..=240).map(|number| (who(&format!("a-{number:03}"), 0), beat(number))).collect();
    beats.extend((1..=70).map(|number| (who("crowded", number), beat(1_000 + number))));
    beats.extend((1..=240).map(|number| (who(&format!("z-{number:03}"), number), beat(number))));
    bench.app.store.keep_heartbeats(&beats, 64).await.unwrap();
    beats.drain(240..246);
    let mut kept = bench.app.store.heartbeats(UnixMillis(0)).await.unwrap();
    kept.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(kept, beats);
    // What came late changes nothing, and what is later takes its place.
    let late: Vec<_> = beats.iter().map(|(who, kept)| (who.clone(), beat(kept.seen_at.0 - 1))).collect();
    bench.app.store.keep_heartbeats(&late, 64).await.unwrap();
    let later: Vec<_> = beats.iter().take(300).map(|(who, _)| (who.clone(), beat(5_000))).collect();
    bench.app.store.keep_heartbeats(&later, 64).await.unwrap();
    let mut kept = bench.app.store.heartbeats(UnixMillis(0)).await.unwrap();
    kept.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!((&kept[..300], &kept[300..]), (&later[..], &beats[300..]));
}

#[tokio::test]
async fn it_is_measured_how_long_a_revocation_took_to_be_enforced_everywhere() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let first = bench.revoke_something().await;
    // Nobody was there to enforce it.
    bench.beats(&edge, &bench.beat_at("0a", first, 0)).await;
    bench.beats(&edge, &bench.beat_at("0b", first, 0)).await;
    let position = bench.revoke_something().await;
    bench.host.advance(1_000);
    bench.beats(&edge, &bench.beat_at("0a", position, 960)).await;
    assert_eq!(bench.metric("revocation_enforced_seconds_count").await, 0.0);
    assert_eq!(bench.metric("revocation_unenforced_age_seconds").await, 1.0);
    assert_eq!(bench.metric("edge_enforced_position").await, first as f64);
    assert_eq!(bench.metric("edges_live").await, 1.0);
    assert_eq!(bench.metric("edge_instances_live").await, 2.0);
    bench.beats(&edge, &bench.beat_at("0b", position, 700)).await;
    assert_eq!(bench.metric("revocation_enforced_seconds_count").await, 1.0);
    assert_eq!(bench.metric("revocation_enforced_seconds_sum").await, 0.3);
    assert_eq!(bench.metric("revocation_unenforced_age_seconds").await, 0.0);
    assert_eq!(bench.metric("edge_enforced_position").await, position as f64);
    // One that died holds nothing up.
    bench.revoke_something().await;
    bench.host.advance(29_000);
    bench.beats(&edge, &bench.beat_at("0a", position + 1, 28_500)).await;
    assert_eq!(bench.metric("revocation_enforced_seconds_count").await, 1.0);
    bench.host.advance(1_000);
    assert_eq!(bench.metric("revocation_enforced_seconds_count").await, 2.0);
    assert_eq!(bench.metric("edge_instances_live").await, 1.0);
}

#[tokio::test]
async fn a_date_that_is_set_back_makes_nothing_shorter() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let first = bench.revoke_something().await;
    bench.beats(&edge, &bench.beat_at("0a", first, 0)).await;
    let position = bench.revoke_something().await;
    bench.host.advance(1_000);
    bench.host.wall.fetch_sub(5_000, Ordering::SeqCst);
    bench.beats(&edge, &bench.beat_at("0a", position, 200)).await;
    assert_eq!(bench.metric("revocation_enforced_seconds_count").await, 1.0);
    assert_eq!(bench.metric("revocation_enforced_seconds_sum").await, 0.8);
}

#[tokio::test]
async fn what_is_revoked_once_more_after_a_restart_is_not_measured_anew() {
    let mut bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let index = bench.app.indices.next().await.unwrap().index;
    let order = crate::store::RevocationOrder::Index(index);
    let first = bench.app.feed.revoke(&order, None, "test").await.unwrap().0;
    bench.app = bench.another().await;
    bench.beats(&edge, &bench.beat_at("0a", first, 0)).await;
    bench.beats(&edge, &bench.beat_at("0b", first - 1, 0)).await;
    assert_eq!(bench.app.feed.revoke(&order, None, "test").await.unwrap().0, first);
    bench.beats(&edge, &bench.beat_at("0b", first, 0)).await;
    assert_eq!(bench.metric("revocation_enforced_seconds_count").await, 0.0);
}

#[tokio::test]
async fn a_replica_waits_for_edges_that_report_to_another_one() {
    let mut bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let first = bench.revoke_something().await;
    let (here, there) = (Arc::clone(&bench.app), bench.another().await);
    bench.app = Arc::clone(&there);
    bench.beats(&edge, &bench.beat_at("0a", first, 0)).await;
    there.keep_heartbeats().await.unwrap();
    here.keep_heartbeats().await.unwrap();
    bench.app = Arc::clone(&here);
    let position = bench.revoke_something().await;
    bench.host.advance(500);
    assert_eq!(bench.metric("revocation_unenforced_age_seconds").await, 0.5);
    // The other one notices the position, and hears that it is enforced.
    there.feed.look().await.unwrap();
    bench.app = Arc::clone(&there);
    bench.beats(&edge, &bench.beat_at("0a", position, 400)).await;
    assert_eq!(bench.metric("revocation_enforced_seconds_count").await, 0.0, "it did not commit it");
    there.keep_heartbeats().await.unwrap();
    here.keep_heartbeats().await.unwrap();
    bench.app = here;
    assert_eq!(bench.metric("revocation_enforced_seconds_count").await, 1.0);
    // What the other one heard counts from when it is read here: their clocks are not compared.
    assert_eq!(bench.metric("revocation_enforced_seconds_sum").await, 0.5);
}
