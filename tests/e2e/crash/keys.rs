//! Killed while one signing key follows another, by the schedule or because it is withdrawn.

use super::bench::{Backend, Bench, verified};

pub(super) const STEPS: &[&str] = &[
    "write.begun:1",
    "keys.row_written:1",
    "keys.row_written:2",
    "keys.row_written:3",
    "keys.logged",
    "keys.before_commit",
    "keys.committed",
];

/// Tokens that were acknowledged verify afterwards, one key signs, and edges have the keys that are published.
async fn keys_follow_each_other_or_not(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    bench.add_user("alice").await;
    for (number, step) in STEPS.iter().enumerate() {
        let before = bench.login("alice").await.access;
        let later = (40 * (number + 1)).to_string();
        let position = bench.numbers("SELECT MAX(position) FROM feed_log WHERE kind = 'keys'").await;
        bench.kill_at_order(step, &["rotate-keys", &later]).await;
        let changed =
            bench.numbers("SELECT MAX(position) FROM feed_log WHERE kind = 'keys'").await != position;
        assert_eq!(changed, *step == "keys.committed", "{step}");
        let keys = bench.published_keys().await;
        assert!(verified(&before, &keys).is_some(), "{step}");
        let after = bench.login("alice").await.access;
        assert!(verified(&after, &keys).is_some(), "{step}");
        assert_eq!(key_of(&before) != key_of(&after), changed, "{step}");
    }
    bench.check_feed(&[]).await;
}

/// A key is withdrawn for everybody or for nobody.
async fn a_key_is_withdrawn_or_not(backend: Backend) {
    let mut bench = Bench::new(backend, 0).await;
    bench.add_user("alice").await;
    for step in STEPS {
        let before = bench.login("alice").await.access;
        let key = key_of(&before);
        bench.kill_at_order(step, &["withdraw-key", &key]).await;
        let withdrawn = *step == "keys.committed";
        let keys = bench.published_keys().await;
        assert_eq!(verified(&before, &keys).is_none(), withdrawn, "{step}");
        let cutoffs = format!("SELECT COUNT(*) FROM feed_log WHERE dimension = 'key' AND value = '{key}'");
        assert_eq!(bench.numbers(&cutoffs).await, [i64::from(withdrawn)], "{step}");
        let after = bench.login("alice").await.access;
        assert!(verified(&after, &keys).is_some() && !bench.edge_refuses(&after), "{step}");
        assert_eq!(key_of(&after) != key, withdrawn, "{step}");
    }
    bench.check_feed(&[]).await;
}

fn key_of(token: &str) -> String {
    let untrusted = tollgate_shared::token::UntrustedToken::parse(token.as_bytes()).unwrap();
    untrusted.header().key_id.as_str().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_follow_each_other_or_not_on_sqlite() {
    keys_follow_each_other_or_not(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_follow_each_other_or_not_on_postgres() {
    keys_follow_each_other_or_not(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_withdrawn_or_not_on_sqlite() {
    a_key_is_withdrawn_or_not(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_withdrawn_or_not_on_postgres() {
    a_key_is_withdrawn_or_not(Backend::Postgres).await;
}
