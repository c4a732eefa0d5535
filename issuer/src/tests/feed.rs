//! Revocations, and how edges hear of them.

use std::collections::BTreeSet;

use tollgate_shared::revocation::{Position, StatusIndex};
use tollgate_shared::wire::feed::{MEDIA_TYPE, PART_BYTES};

use super::*;
use crate::feed::FeedClock;
use crate::store::RevocationOrder;

async fn revoke(bench: &Bench, token: &str, client: &str) -> StatusCode {
    bench.form("/oauth2/revoke", None, &format!("token={token}&client_id={client}")).await.status
}

#[tokio::test]
async fn a_revoked_token_is_in_the_next_delta() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    let first = bench.poll(&edge, &mut state, 0).await;
    assert!(matches!(first.change, FeedChange::Snapshot { .. }));
    assert!(first.keys.is_some() && first.plans.is_some());
    let token = bench.login("alice").await["access_token"].as_str().unwrap().to_owned();
    assert_eq!(revoke(&bench, &token, "first-party").await, StatusCode::OK);
    let second = bench.poll(&edge, &mut state, 0).await;
    let to = second.to;
    let second = delta(second);
    assert_eq!((second.from, second.revoked), (first.to, vec![StatusIndex(0)]));
    assert_eq!(second.blocks.len(), 1);
    // Once more changes nothing, and the proof of freshness is empty.
    assert_eq!(revoke(&bench, &token, "first-party").await, StatusCode::OK);
    let third = bench.poll(&edge, &mut state, 0).await;
    assert_eq!(delta(third), Delta { from: to, ..Delta::default() });
    // Who starts now has the same set, after the news since the last snapshot.
    assert_eq!(bench.start_edge(&edge).await.revoked, state.unwrap().revoked);
}

#[tokio::test]
async fn a_token_is_revoked_by_its_client_or_an_operator_only() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let token = bench.login("alice").await["access_token"].as_str().unwrap().to_owned();
    let before = bench.app.store.position().await.unwrap();
    let form = format!("token={token}&client_id=unknown");
    assert_eq!(bench.form("/oauth2/revoke", None, &form).await.json()["error"], "invalid_client");
    let another = bench.confidential("another").await;
    let form = "application/x-www-form-urlencoded";
    let revoke = async |body: String| {
        bench.authorized(Method::POST, "/oauth2/revoke", Some(&another), form, body).await
    };
    let answer = revoke(format!("token={token}")).await;
    assert_eq!(
        (answer.status, answer.json()),
        (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }))
    );
    let twice =
        bench.form("/oauth2/revoke", None, &format!("token={token}&token=x&client_id=first-party")).await;
    assert_eq!(twice.json()["error"], "invalid_request");
    let answer = revoke("token=garbage".to_owned()).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    assert_eq!(bench.app.store.position().await.unwrap(), before);
    let answer = bench.form("/oauth2/revoke", Some(&bench.operator), &format!("token={token}")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(bench.app.store.position().await.unwrap() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_poller_that_follows_fifty_concurrent_revokers_has_exactly_the_set_of_the_database() {
    let bench = Arc::new(Bench::new().await);
    let edge = bench.edge("eu-1").await;
    let other = bench.another().await;
    let mut state = None;
    let start = bench.poll(&edge, &mut state, 0).await.to;
    let mut indices = BTreeSet::new();
    for _ in 0..200 {
        indices.insert(bench.app.indices.next().await.unwrap().index);
    }
    let mut revokers = tokio::task::JoinSet::new();
    let all: Vec<StatusIndex> = indices.iter().copied().collect();
    for (number, chunk) in all.chunks(4).enumerate() {
        // Half of them in another process, which our polls are not woken by.
        let app = if number % 2 == 0 { Arc::clone(&bench.app) } else { Arc::clone(&other) };
        let chunk = chunk.to_vec();
        revokers.spawn(async move {
            for index in chunk {
                app.feed.revoke(&RevocationOrder::Index(index), None, "test").await.unwrap();
            }
        });
    }
    let follower = {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            let mut deltas = 0;
            while state.as_ref().unwrap().position < Position(start.0 + 200) {
                bench.app.feed.look().await.unwrap();
                let message = bench.poll(&edge, &mut state, 0).await;
                delta(message);
                deltas += 1;
            }
            assert!(deltas > 0);
            state.unwrap()
        })
    };
    while let Some(done) = revokers.join_next().await {
        done.unwrap();
    }
    let state = follower.await.unwrap();
    assert_eq!(state.position, Position(start.0 + 200));
    assert_eq!(state.revoked.indices.len(), 200);
    assert!(indices.iter().all(|index| state.revoked.indices.contains(*index)));
}

#[tokio::test]
async fn a_held_poll_ends_with_the_revocation_it_waited_for() {
    let bench = Arc::new(Bench::new().await);
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    bench.poll(&edge, &mut state, 0).await;
    let held = {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.poll(&edge, &mut state, 30).await })
    };
    // Until the poll is held indeed.
    while !bench.app.metrics.text().unwrap().contains("feed_polls_open 1") {
        tokio::task::yield_now().await;
    }
    let order = json!({ "dimension": "session", "value": "s_1", "reason": "lost" });
    let answer = bench.post("/v1/admin/revocations", Some(&bench.operator), &order).await.json();
    let message = held.await.unwrap();
    assert_eq!(message.to.0, answer["position"].as_u64().unwrap());
    assert_eq!(message.epoch.to_hex(), answer["epoch"].as_str().unwrap());
    let cutoffs = delta(message).cutoffs;
    assert_eq!((cutoffs.len(), cutoffs[0].issued_before), (1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_hundreds_ask_at_once_is_read_once_for_all() {
    let bench = Arc::new(Bench::new().await);
    for number in 0..50 {
        let order = bench.app.revocation_order("session", &format!("s_{number}"), None, None).unwrap();
        bench.app.feed.revoke(&order, None, "test").await.unwrap();
    }
    let position = bench.app.store.position().await.unwrap();
    let reads = |kind: &str| {
        let text = bench.app.metrics.text().unwrap();
        let line = format!("feed_reads_total{{kind=\"{kind}\"}} ");
        text.split(&line).nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse::<u64>().unwrap())
    };
    let all_at_once = async |has: Option<Position>| {
        let start = Arc::new(tokio::sync::Barrier::new(300));
        let mut polls = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let (bench, start) = (Arc::clone(&bench), Arc::clone(&start));
            polls.spawn(async move {
                start.wait().await;
                let asked_at = bench.app.feed.now();
                let has = has.map(|position| (bench.app.feed.epoch(), position));
                let wait = Duration::ZERO;
                let request = FeedRequest { has, wait, until: None, least: None, apart: false };
                let answer = bench.app.feed.answer(request, &bench.app.keys.feed).await.unwrap();
                let message = bench.open_message(&answer.message);
                assert!(message.as_of >= asked_at, "no answer is older than the question");
                assert_eq!((message.to, answer.to), (position, Some(position)));
                match message.change {
                    FeedChange::Delta(delta) => delta.cutoffs.len(),
                    FeedChange::Snapshot { .. } => {
                        let mut state = None;
                        let (anchor, today) = (bench.anchor(), bench.host.seconds());
                        apply_body(&anchor, &answer.message, &mut state, today).unwrap();
                        state.unwrap().revoked.cutoffs.len()
                    }
                }
            });
        }
        polls.join_all().await
    };
    assert!(all_at_once(None).await.iter().all(|cutoffs| *cutoffs == 50));
    assert!(all_at_once(Some(Position(position.0 - 3))).await.iter().all(|cutoffs| *cutoffs == 3));
    assert!(all_at_once(Some(Position(u64::MAX))).await.iter().all(|cutoffs| *cutoffs == 50));
    assert_eq!(reads("snapshot"), 1, "everything is read once for each position");
    assert!(reads("empty") + reads("delta") < 10, "{} and {}", reads("empty"), reads("delta"));
    // What comes is in the next answer to who has the rest.
    let order = bench.app.revocation_order("session", "s_50", None, None).unwrap();
    bench.app.feed.revoke(&order, None, "test").await.unwrap();
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    bench.poll(&edge, &mut state, 0).await;
    assert_eq!(delta(bench.poll(&edge, &mut state, 0).await).cutoffs.len(), 1);
    assert_eq!(state.unwrap().revoked.cutoffs.len(), 51);
    assert_eq!(reads("snapshot"), 1);
}

#[tokio::test]
async fn an_edge_is_shown_as_whoever_heard_of_it_last_did() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let other = bench.another().await;
    bench.poll(&edge, &mut None, 0).await;
    bench.app.keep_house().await.unwrap();
    assert!(bench.app.edges_seen.lock().unwrap().is_empty(), "what was written is forgotten");
    bench.poll(&edge, &mut None, 0).await;
    bench.host.advance(7_000);
    let seen = crate::store::EdgeSeen { at: bench.host.seconds(), position: Position(1) };
    other.store.keep_edges_seen(&[("eu-1".to_owned(), seen)]).await.unwrap();
    let shown = bench.get("/v1/admin/edges", Some(&bench.operator)).await.json();
    assert_eq!(shown["edges"][0]["seen_at"], seen.at.0, "another replica's is later than ours");
    bench.host.advance(1_000);
    bench.poll(&edge, &mut None, 0).await;
    let shown = bench.get("/v1/admin/edges", Some(&bench.operator)).await.json();
    assert_eq!(shown["edges"][0]["seen_at"], seen.at.0 + 1, "ours, which is not written yet");
}

#[tokio::test]
async fn of_a_thousand_edges_each_is_kept() {
    let bench = Bench::new().await;
    let names: Vec<String> = (0..1_201).map(|number| format!("eu-{number}")).collect();
    for name in [&names[0], &names[499], &names[500], &names[1_200]] {
        bench.edge(name).await;
    }
    let seen =
        |number: usize| crate::store::EdgeSeen { at: START.seconds(), position: Position(number as u64) };
    let all: Vec<_> = names.iter().enumerate().map(|(number, name)| (name.clone(), seen(number))).collect();
    bench.app.store.keep_edges_seen(&all).await.unwrap();
    let edges = bench.app.store.edges().await.unwrap();
    let positions: Vec<u64> = edges.iter().map(|edge| edge.seen.unwrap().position.0).collect();
    assert_eq!(positions, [0, 1_200, 499, 500], "by name");
}

#[tokio::test]
async fn a_step_of_housekeeping_that_fails_keeps_none_from_being_done() {
    let bench = Bench::new().await;
    for number in 0..2 {
        let order = bench.app.revocation_order("session", &format!("s_{number}"), None, None).unwrap();
        bench.app.feed.revoke(&order, None, "test").await.unwrap();
    }
    bench.host.advance(3 * 86_400_000);
    bench.spoil("DROP TABLE edge_activity").await;
    bench.app.edge_seen(
        &tollgate_shared::id::EdgeId::new("eu-1").unwrap(),
        crate::store::EdgeSeen { at: bench.host.seconds(), position: Position(1) },
    );
    bench.app.keep_house().await.unwrap_err();
    assert_eq!(bench.app.store.prune_feed_log(bench.host.seconds()).await.unwrap(), 0, "it was pruned");
}

#[tokio::test]
async fn closing_ends_a_held_poll() {
    let bench = Arc::new(Bench::new().await);
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    bench.poll(&edge, &mut state, 0).await;
    let held = {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.poll(&edge, &mut state, 30).await })
    };
    while !bench.app.metrics.text().unwrap().contains("feed_polls_open 1") {
        tokio::task::yield_now().await;
    }
    bench.app.close();
    assert!(delta(held.await.unwrap()).revoked.is_empty());
}

#[tokio::test]
async fn who_is_ahead_or_far_behind_or_of_another_history_gets_a_snapshot() {
    let bench = Bench::with(|settings| {
        let feed = crate::config::FeedSettings { delta_max: 2, ..settings.feed };
        Settings { feed, ..settings }
    })
    .await;
    let edge = bench.edge("eu-1").await;
    for number in 0..5 {
        let order = bench.app.revocation_order("session", &format!("s_{number}"), None, None).unwrap();
        bench.app.feed.revoke(&order, None, "test").await.unwrap();
    }
    let epoch = bench.app.feed.epoch().to_hex();
    let other = "0".repeat(32);
    for (query, snapshot) in [
        (format!("?epoch={epoch}&after=5"), false),
        (format!("?epoch={epoch}&after=4"), true),
        (format!("?epoch={epoch}&after=8&wait=30"), true),
        (format!("?epoch={other}&after=7&wait=30"), true),
        ("?after=7".to_owned(), true),
    ] {
        let answer = bench.get(&format!("/v1/edge/feed{query}"), Some(&edge)).await;
        let message = bench.open_message(&answer.body);
        assert_eq!(matches!(message.change, FeedChange::Snapshot { .. }), snapshot, "{query}");
        assert_eq!(message.to, Position(7));
    }
    let answer = bench.get("/v1/edge/feed?epoch=zz&after=1", Some(&edge)).await;
    assert_eq!(answer.json()["detail"], "epoch: must be 32 hex digits");
}

#[tokio::test]
async fn a_restart_publishes_nothing_that_was_published() {
    let bench = Bench::new().await;
    let before = bench.app.store.position().await.unwrap();
    let again = bench.another().await;
    again.publish().await.unwrap();
    assert_eq!(again.store.position().await.unwrap(), before);
    assert_eq!(again.feed.epoch(), bench.app.feed.epoch());
}

#[tokio::test]
async fn what_is_forgotten_does_not_move_the_position_back() {
    let bench = Bench::new().await;
    let order = bench.app.revocation_order("session", "s_1", None, None).unwrap();
    bench.app.feed.revoke(&order, None, "test").await.unwrap();
    let last = bench.app.feed.revoke(&order, None, "test").await.unwrap();
    bench.host.advance(3 * 86_400_000);
    bench.app.keep_house().await.unwrap();
    assert_eq!(bench.app.store.position().await.unwrap(), last);
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    bench.poll(&edge, &mut state, 0).await;
    assert!(state.unwrap().revoked.cutoffs.is_empty());
}

#[test]
fn the_feed_clock_never_goes_back() {
    let now = |wall, monotonic| Now { wall: UnixMillis(wall), monotonic: Monotonic(monotonic) };
    let clock = FeedClock::new(UnixMillis(5_000), now(1_000, 0));
    let mut last = UnixMillis(0);
    for (wall, monotonic) in
        [(1_000, 0), (1_500, 500), (900_000, 1_000), (10, 1_500), (10, 2_000), (900_001, 2_001)]
    {
        let shown = clock.read(now(wall, monotonic));
        assert!(shown >= last, "{shown:?} after {last:?}");
        last = shown;
    }
    assert_eq!(last, UnixMillis(901_001));
    assert_eq!(FeedClock::new(UnixMillis(5_000), now(1_000, 7)).read(now(0, 17)), UnixMillis(5_010));
}

#[test]
fn the_feed_clock_goes_on_after_a_jump_forward_that_was_set_right() {
    let now = |wall, monotonic| Now { wall: UnixMillis(wall), monotonic: Monotonic(monotonic) };
    let clock = FeedClock::new(UnixMillis(0), now(1_000, 0));
    assert_eq!(clock.read(now(3_601_000, 1_000)), UnixMillis(3_601_000));
    assert_eq!(clock.read(now(3_000, 2_000)), UnixMillis(3_602_000));
    assert_eq!(clock.read(now(63_000, 62_000)), UnixMillis(3_662_000));
}

#[tokio::test]
async fn the_feed_clock_does_not_go_back_over_a_restart() {
    let bench = Bench::new().await;
    bench.host.advance(600_000);
    bench.app.keep_house().await.unwrap();
    let shown = bench.app.feed.now();
    bench.host.wall.store(START.0, Ordering::SeqCst);
    assert!(bench.another().await.feed.now() >= shown);
}

#[tokio::test]
async fn a_segment_is_the_same_at_every_replica_and_may_be_kept_for_good() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let epoch = bench.app.feed.epoch().to_hex();
    let segment =
        async |from: &str| bench.get(&format!("/v1/edge/history/{epoch}/{from}"), Some(&edge)).await;
    assert_eq!(segment("0").await.status, StatusCode::NOT_FOUND, "it is not whole yet");
    bench.fill_a_segment().await;
    let first = segment("0").await;
    assert_eq!((first.status, first.header(header::CONTENT_TYPE)), (StatusCode::OK, MEDIA_TYPE));
    assert_eq!(first.header(header::CACHE_CONTROL), "public, max-age=31536000, immutable");
    let message = bench.open_message(&first.body);
    assert_eq!((message.to, message.head), (Position(1024), Position(1024)));
    assert_eq!(delta(message).cutoffs.len(), 1022);
    // Later, and by a replica that has only just read the log.
    bench.host.advance(600_000);
    let order = bench.app.revocation_order("session", "s_new", None, None).unwrap();
    bench.app.feed.revoke(&order, None, "test").await.unwrap();
    let other = bench.another().await;
    let of_other = other.feed.segment(other.feed.epoch(), Position(0), &other.keys.feed).await.unwrap();
    assert_eq!((&segment("0").await.body, of_other.as_deref()), (&first.body, Some(first.body.as_slice())));
    let request = Request::get(format!("/v1/edge/history/{epoch}/0"))
        .header(header::AUTHORIZATION, format!("Bearer {edge}"))
        .header(header::IF_NONE_MATCH, first.header(header::ETAG));
    let known = bench.request(request.body(Body::empty()).unwrap()).await;
    assert_eq!((known.status, known.body.len()), (StatusCode::NOT_MODIFIED, 0));
    for other in ["1", "1024", "00", "+0", "-1", "x", "18446744073709551615"] {
        assert_eq!(segment(other).await.status, StatusCode::NOT_FOUND, "{other}");
    }
    for other in ["0".repeat(32), epoch.to_uppercase() + "0", "x".to_owned()] {
        let answer = bench.get(&format!("/v1/edge/history/{other}/0"), Some(&edge)).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{other}");
    }
}

#[tokio::test]
async fn a_large_snapshot_is_taken_in_parts_that_never_change() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let get = async |path: &str| bench.get(path, Some(&edge)).await;
    let small = get("/v1/edge/feed?pieces=apart").await;
    assert!(bench.anchor().open(&small.body).is_ok(), "a small one comes whole");
    assert_eq!(get("/v1/edge/feed?pieces=x").await.status, StatusCode::BAD_REQUEST);
    bench.cut_off_sessions(12_000, &"s".repeat(60)).await;
    let whole = get("/v1/edge/feed").await.body;
    let head = get("/v1/edge/feed?pieces=apart").await.body;
    assert!(whole.starts_with(&head) && whole.len() > PART_BYTES && head.len() < whole.len() / 10);
    let (message, _) = bench.anchor().open_start(&head, head.len()).unwrap();
    let id = bench.snapshot_id().await;
    let mut taken = head.clone();
    let (mut parts, mut piece) = (0, 0);
    while piece < message.pieces().len() {
        let path = format!("/v1/edge/snapshot/{id}/{piece}");
        let part = get(&path).await;
        assert_eq!(
            (part.status, part.header(header::CONTENT_TYPE)),
            (StatusCode::OK, "application/cbor-seq")
        );
        assert_eq!(part.header(header::CACHE_CONTROL), "public, max-age=600, immutable");
        let request = Request::get(&path)
            .header(header::AUTHORIZATION, format!("Bearer {edge}"))
            .header(header::IF_NONE_MATCH, part.header(header::ETAG));
        let known = bench.request(request.body(Body::empty()).unwrap()).await;
        assert_eq!(known.status, StatusCode::NOT_MODIFIED);
        let mut left = part.body.len();
        while left > 0 {
            left -= message.pieces()[piece].size as usize;
            piece += 1;
        }
        taken.extend_from_slice(&part.body);
        parts += 1;
    }
    assert!(taken == whole && parts > 1, "{parts} parts");
    for other in
        [format!("{id}/{piece}"), format!("{id}/00"), format!("{id}/x"), format!("{}/0", "0".repeat(64))]
    {
        let answer = get(&format!("/v1/edge/snapshot/{other}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{other}");
    }
    // Who has begun goes on while others are given later ones, and not for ever.
    for later in 1..=3 {
        assert_eq!(get(&format!("/v1/edge/snapshot/{id}/1")).await.status, StatusCode::OK, "{later}");
        bench.host.advance(61_000);
        bench.app.feed.look().await.unwrap();
        assert_ne!(bench.snapshot_id().await, id);
    }
    assert_eq!(get(&format!("/v1/edge/snapshot/{id}/1")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_delta_ends_where_it_is_asked_to_and_a_snapshot_is_as_late_as_it_is_asked_to_be() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    let start = bench.poll(&edge, &mut state, 0).await.to;
    for number in 0..5 {
        let order = bench.app.revocation_order("session", &format!("s_{number}"), None, None).unwrap();
        bench.app.feed.revoke(&order, None, "test").await.unwrap();
    }
    let head = Position(start.0 + 5);
    let epoch = bench.app.feed.epoch().to_hex();
    let ask = async |query: String| {
        let answer = bench.get(&format!("/v1/edge/feed?{query}"), Some(&edge)).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}");
        bench.open_message(&answer.body)
    };
    for (until, to) in [(start.0 + 2, start.0 + 2), (head.0 + 9, head.0), (0, start.0)] {
        // What needs no wait has none.
        let message = ask(format!("epoch={epoch}&after={}&until={until}&wait=30", start.0)).await;
        assert_eq!((message.to, message.head), (Position(to), head), "{until}");
        assert_eq!(delta(message).cutoffs.len() as u64, to - start.0);
    }
    let message = ask(format!("epoch={epoch}&after={}&until={}&wait=30", head.0, head.0)).await;
    assert_eq!(message.to, head, "nothing is waited for that would not be told");
    assert_eq!(ask(String::new()).await.to, start, "the last one");
    assert_eq!(ask(format!("least={}", start.0)).await.to, start);
    assert_eq!(ask(format!("least={}", start.0 + 1)).await.to, head);
    assert_eq!(ask(String::new()).await.to, head);
    let read_at = bench.app.feed.now();
    // Of the very position, one that is older than what was told since is of no use.
    bench.host.advance(10_000);
    assert_eq!(ask(String::new()).await.as_of, read_at);
    assert!(ask(format!("least={}", head.0)).await.as_of > read_at);
    bench.host.advance(61_000);
    assert_eq!(ask(String::new()).await.as_of, bench.app.feed.now(), "none is kept for longer");
    let answer = bench.get("/v1/edge/feed?least=x", Some(&edge)).await;
    assert_eq!(answer.json()["detail"], "least: must be a whole number");
}

#[tokio::test]
async fn what_is_known_is_told_for_two_seconds_when_the_log_cannot_be_read() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    let known = bench.poll(&edge, &mut state, 0).await;
    bench.spoil("ALTER TABLE feed_log RENAME TO feed_log_gone").await;
    for millis in [100, 1_800] {
        bench.host.advance(millis);
        let message = bench.poll(&edge, &mut state, 0).await;
        assert_eq!((message.to, message.as_of), (known.to, known.as_of), "it says how old it is");
    }
    bench.host.advance(200);
    assert_eq!(bench.get("/v1/edge/feed", Some(&edge)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    bench.spoil("ALTER TABLE feed_log_gone RENAME TO feed_log").await;
    bench.host.advance(60);
    let message = bench.poll(&edge, &mut state, 0).await;
    assert_eq!(message.as_of, bench.app.feed.now());
}

#[tokio::test]
async fn a_log_that_was_set_back_is_read_anew() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let revoke = async |name: &str| {
        let order = bench.app.revocation_order("session", name, None, None).unwrap();
        bench.app.store.revoke(&order, None, "test", &*bench.app.host).await.unwrap().position
    };
    let lost = revoke("s_lost").await;
    let mut state = None;
    assert_eq!(bench.poll(&edge, &mut state, 0).await.to, lost);
    let snapshot = bench.snapshot_id().await;
    assert!(bench.app.feed.snapshot_part(&snapshot, 0).is_some());
    bench.spoil("DELETE FROM feed_log WHERE position = (SELECT MAX(position) FROM feed_log)").await;
    assert_eq!(revoke("s_other").await, lost, "the same place");
    for _ in 0..3 {
        revoke("s_more").await;
    }
    bench.host.advance(100);
    let values = |state: &FeedState| -> Vec<String> {
        state.revoked.cutoffs.iter().map(|cutoff| cutoff.value).collect()
    };
    let fresh = bench.start_edge(&edge).await;
    assert_eq!(values(&fresh), ["s_more", "s_other"]);
    assert_eq!(bench.app.feed.snapshot_part(&snapshot, 0), None, "it was of a log that is no more");
    // Who had followed is not told to go on from a place that was another one.
    let followed = state.as_ref().unwrap().epoch;
    bench.poll(&edge, &mut state, 0).await;
    let state = state.unwrap();
    assert_eq!(values(&state), ["s_more", "s_other"]);
    assert_ne!(state.epoch, followed);
    assert_eq!(bench.app.store.known_epoch().await.unwrap(), Some(state.epoch));
}

#[tokio::test]
async fn another_history_that_an_operator_orders_is_told_to_every_edge() {
    let bench = Bench::new().await;
    let edge = bench.edge("eu-1").await;
    let mut state = None;
    let before = bench.poll(&edge, &mut state, 0).await;
    let data = bench.folder.path().to_str().unwrap();
    let output = settings::command(&["--data-dir", data, "feed", "renew"], "").await.unwrap();
    let renewed = bench.app.store.known_epoch().await.unwrap().unwrap();
    assert_eq!(output.trim(), renewed.to_hex());
    assert_ne!(renewed, before.epoch);
    bench.app.feed.look().await.unwrap();
    let after = bench.poll(&edge, &mut state, 0).await;
    assert!(matches!(after.change, FeedChange::Snapshot { .. }), "{after:?}, {before:?}");
    assert_eq!((after.epoch, after.to), (renewed, before.to));
    let query = crate::audit::AuditQuery { action: Some("feed.renew".to_owned()), ..Default::default() };
    assert_eq!(bench.audit(query).await.len(), 1);
}
