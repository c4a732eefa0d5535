//! Rows 5 and 6: true messages at the wrong time.

use tollgate_tests::feed_proxy::{Kind, Mode};

use super::{Edge, FEED, REFUSED};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_before_a_revocation_does_not_take_it_back() {
    let edge = Edge::start().await;
    let (good, revoked) = (edge.token().await, edge.revoked_token().await);
    let mut seen = Vec::new();
    for kind in [Kind::After, Kind::Whole] {
        let later = edge.token().await;
        edge.all_come_to(200, &later).await;
        let (refused, spoiled) = (edge.counted(REFUSED).await, edge.proxy().tally(FEED).spoiled);
        edge.proxy().set_mode(FEED, Mode::ReplayOld(kind));
        edge.revoke(&later).await;
        edge.spoiled(spoiled, 5).await;
        edge.all_answer(401, &revoked, "replayed").await;
        edge.all_answer(200, &good, "replayed").await;
        edge.all_answer(200, &later, "an old message has nothing of it").await;
        let refused = edge.counts(REFUSED, refused + 5).await - refused;
        edge.heal();
        edge.all_come_to(401, &later).await;
        edge.all_answer(401, &revoked, "afterwards").await;
        seen.push(format!("{kind:?}: {refused} refused"));
    }
    assert_eq!(edge.reloads().await, 0);
    println!(
        "row 5: the first delta and the first snapshot, again and again → {}; who was revoked stays so",
        seen.join(", ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_gaps_doubles_and_swaps_exactly_what_was_revoked_is_refused() {
    const TOKENS: usize = 20;
    let edge = Edge::start().await;
    let mut seen = Vec::new();
    for mode in [Mode::Gap, Mode::Duplicate, Mode::Reorder] {
        let (good, revoked) = (edge.tokens(TOKENS).await, edge.tokens(TOKENS).await);
        let refused = edge.counted(REFUSED).await;
        edge.proxy().set_mode(FEED, mode);
        for token in &revoked {
            let before = edge.proxy().tally(FEED).spoiled;
            edge.revoke(token).await;
            edge.spoiled(before, 1).await;
        }
        edge.heal();
        edge.all_come_to(401, &revoked[TOKENS - 1]).await;
        for (good, revoked) in good.iter().zip(&revoked) {
            edge.all_answer(401, revoked, &format!("{mode:?}: revoked")).await;
            edge.all_answer(200, good, &format!("{mode:?}: good")).await;
        }
        // A copy that another VM lacks is of use to it.
        let least = if mode == Mode::Duplicate { 0 } else { 1 };
        let refused = edge.counts(REFUSED, refused + least).await - refused;
        seen.push(format!("{mode:?}: {refused} messages refused"));
    }
    assert_eq!(edge.reloads().await, 0);
    println!(
        "row 6: {TOKENS} revocations under each → {}; then {TOKENS} of {TOKENS} refused and {TOKENS} of {TOKENS} good \
         tokens admitted",
        seen.join(", ")
    );
}
