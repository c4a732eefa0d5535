//! Killed while a slot of users moves from one database to another.

use tollgate_issuer::store::slot_of;

use super::bench::{Backend, Bench, numbers};

pub(super) const STEPS: &[&str] = &[
    "move.noted",
    "move.before_disowned",
    "move.disowned",
    "move.cleared",
    "move.copied",
    "move.owned",
    "move.history_copied",
    "move.history_brought",
    "move.before_tidied",
    "move.tidied",
    "move.settled",
];

/// No two databases have a slot at any moment; once the move is taken up, the other one has it, with everything of its
/// users and nothing left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_in_one_database() {
    let mut bench = Bench::new(Backend::Postgres, 1).await;
    let shard = bench.database().replace("/home", "/shard0");
    let mut moved = Vec::new();
    for step in STEPS {
        let user = bench.add_user(step).await;
        let session = bench.login(step).await;
        let slot = slot_of(&user).to_string();
        if moved.contains(&slot) {
            continue;
        }
        moved.push(slot.clone());
        bench.kill_at_order(step, &["move", &slot]).await;
        let owned = format!("SELECT COUNT(*) FROM owned_slots WHERE slot = {slot}");
        let owners = [bench.numbers(&owned).await, numbers(&shard, &owned).await].concat();
        assert!(owners != [1, 1], "{step}: one database has the slot at most");
        bench.act(&["move", &slot]).await;
        assert_eq!(
            (bench.numbers(&owned).await, numbers(&shard, &owned).await),
            (vec![0], vec![1]),
            "{step}"
        );
        for table in [
            "users WHERE id",
            "sessions WHERE user_id",
            "devices WHERE user_id",
            "login_events WHERE user_id",
        ] {
            let rows = format!("SELECT COUNT(*) FROM {table} = '{user}'");
            let rows = (bench.numbers(&rows).await, numbers(&shard, &rows).await);
            assert_eq!(rows, (vec![0], vec![1]), "{step}: {table}");
        }
        bench.refresh(&session.refresh).await.expect(step);
        bench.login(step).await;
    }
}
