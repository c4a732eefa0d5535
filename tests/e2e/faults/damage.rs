//! Row 4: answers that are no messages, or were.

use std::time::Duration;

use tollgate_tests::eventually::eventually;
use tollgate_tests::feed_proxy::{Ending, Mode};

use super::{Edge, FAILED, FEED, REFUSED};

const EVERY: usize = 7;

impl Edge {
    /// Spoils one answer that has news, and waits until another one passed: so no failure follows on a failure for long.
    async fn spoil_news(&self, mode: Mode, number: u64) {
        self.proxy().set_mode(FEED, Mode::Hang);
        self.stack.issuer.revoke_subject(&format!("nobody-{number}")).await.unwrap();
        let before = self.proxy().tally(FEED);
        self.proxy().spoil(FEED, mode, 1);
        self.spoiled(before.spoiled, 1).await;
        eventually("an answer that passes", Duration::from_secs(20), async || {
            if self.proxy().tally(FEED).passed > before.passed { Ok(()) } else { Err("none") }
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_answers_leave_the_state_as_it_was_and_are_forgotten_with_the_first_good_one() {
    let edge = Edge::start().await;
    let (good, revoked) = (edge.token().await, edge.revoked_token().await);
    // How long a message with one cut-off is: as long as those that are damaged below.
    edge.spoil_news(Mode::Flip(0), 0).await;
    let length = usize::try_from(edge.proxy().tally(FEED).latest_length).unwrap();
    assert!(length > 100, "{length}");
    let mut modes = vec![Mode::Status(500), Mode::Status(503), Mode::Html];
    for ending in [Ending::Framed, Ending::Cut] {
        modes
            .extend([0, 1, 2, length / 4, length / 2, length - 1].map(|bytes| Mode::Truncate(bytes, ending)));
    }
    let others = modes.len();
    modes.extend((0..length).step_by(EVERY).map(Mode::Flip));
    let flips = (modes.len() - others) as u64;
    // Envoy itself does not pass on a body that breaks off, and no other status than 200 is read.
    let is_read = |mode: &&Mode| !matches!(mode, Mode::Status(_) | Mode::Truncate(_, Ending::Cut));
    let read = modes.iter().filter(is_read).count() as u64;
    // That first one is counted by then.
    let (failed, refused) = (edge.counts(FAILED, 1).await, edge.counts(REFUSED, 1).await);
    let mut number = 0;
    for mode in modes {
        number += 1;
        edge.spoil_news(mode, number).await;
        edge.all_answer(200, &good, &format!("{mode:?}")).await;
        edge.all_answer(401, &revoked, &format!("{mode:?}")).await;
    }
    let failed = edge.counts(FAILED, failed + number).await - failed;
    let refused = edge.counts(REFUSED, refused + read).await - refused;
    assert_eq!(refused, read, "each that was read was refused, and no other");

    // While nothing else arrives, what is revoked is not known yet; then it is.
    let later = edge.token().await;
    edge.all_come_to(200, &later).await;
    edge.proxy().set_mode(FEED, Mode::Flip(length / 2));
    edge.revoke(&later).await;
    edge.spoiled(edge.proxy().tally(FEED).spoiled, 4).await;
    edge.all_answer(200, &later, "nothing of a damaged message is taken in").await;
    edge.all_answer(401, &revoked, "nothing is forgotten").await;
    edge.heal();
    edge.all_come_to(401, &later).await;
    edge.all_answer(200, &good, "afterwards").await;
    assert_eq!(edge.reloads().await, 0);
    println!(
        "row 4: {number} damaged answers, of them {flips} with a bit of every {EVERY}th of {length} bytes flipped → \
         {failed} failures and {refused} refused messages counted, no answer to a request changed, no VM was replaced"
    );
}
