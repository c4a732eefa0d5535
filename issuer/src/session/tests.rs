//! Refresh tokens: the rule against a naive model of clients, answers that get lost, and thieves.

use proptest::prelude::*;
use tollgate_shared::time::{UnixMillis, UnixSeconds};

use super::*;

const GRACE_MS: u64 = 10_000;

fn family() -> Family {
    Family {
        client: "app".to_owned(),
        generation: 3,
        began_at: UnixSeconds(1_000),
        idle_until: UnixSeconds(5_000),
        expires_at: UnixSeconds(9_000),
        ended: false,
    }
}

fn attempt(now: u64) -> Attempt<'static> {
    Attempt { client: "app", began_before: None, grace_ms: GRACE_MS, now: UnixMillis(now) }
}

fn leaf(generation: u64, rotated_at: Option<u64>) -> Leaf {
    Leaf { generation, rotated_at: rotated_at.map(UnixMillis) }
}

#[test]
fn what_a_token_is_worth() {
    use RefreshRefusal::{Ended, Expired, OtherClient};
    let now = 2_000_000;
    let plain = family();
    let ended = Family { ended: true, ..family() };
    let other = Attempt { client: "other", ..attempt(now) };
    let cut = |second| Attempt { began_before: Some(UnixSeconds(second)), ..attempt(now) };
    let cases = [
        ("current", &plain, leaf(3, None), attempt(now), Verdict::Rotate),
        ("parent, soon", &plain, leaf(2, Some(now - GRACE_MS)), attempt(now), Verdict::Repeat),
        ("parent, by a clock set back", &plain, leaf(2, Some(now + 5)), attempt(now), Verdict::Repeat),
        ("parent, late", &plain, leaf(2, Some(now - GRACE_MS - 1)), attempt(now), Verdict::Reuse),
        ("grandparent, soon", &plain, leaf(1, Some(now)), attempt(now), Verdict::Reuse),
        ("another client's", &plain, leaf(3, None), other, Verdict::Refuse(OtherClient)),
        ("another client's, used", &plain, leaf(1, Some(now)), other, Verdict::Refuse(OtherClient)),
        ("of a session that ended", &ended, leaf(3, None), attempt(now), Verdict::Refuse(Ended)),
        ("begun before the cut-off", &plain, leaf(3, None), cut(1_001), Verdict::Refuse(Ended)),
        ("begun at the cut-off", &plain, leaf(3, None), cut(1_000), Verdict::Rotate),
        ("idle", &plain, leaf(3, None), attempt(5_000_000), Verdict::Refuse(Expired)),
        ("old", &plain, leaf(3, None), attempt(9_000_000), Verdict::Refuse(Expired)),
    ];
    for (name, family, leaf, attempt, verdict) in cases {
        assert_eq!(judge(family, leaf, attempt), verdict, "{name}");
    }
}

/// Somebody presents the token of a generation that was handed out, after some time.
#[derive(Debug, Clone)]
struct Step {
    back: u64,
    millis: u64,
}

proptest! {
    /// The model keeps every token that was handed out and when each was first presented. A token is good once, and again
    /// as long as nobody used what it gave and its grace lasts; everything else ends the session, for good.
    #[test]
    fn a_session_is_good_for_one_line_of_tokens_only(
        steps in prop::collection::vec((0u64..4, 0u64..15_000).prop_map(|(back, millis)| Step { back, millis }), 1..60)
    ) {
        let mut now = 2_000_000;
        let mut family = Family { generation: 0, idle_until: UnixSeconds(u64::MAX), expires_at: UnixSeconds(u64::MAX), ..family() };
        let mut rotated: Vec<Option<u64>> = vec![None];
        let mut over = false;
        for Step { back, millis } in steps {
            now += millis;
            let generation = family.generation.saturating_sub(back);
            let presented = leaf(generation, rotated[usize::try_from(generation).unwrap()]);
            let verdict = judge(&family, presented, attempt(now));
            let used_at = rotated[usize::try_from(generation).unwrap()];
            let child_used = rotated.get(usize::try_from(generation).unwrap() + 1).copied().flatten().is_some();
            let expected = match used_at {
                _ if over => Verdict::Refuse(RefreshRefusal::Ended),
                None => Verdict::Rotate,
                Some(at) if now - at <= GRACE_MS && !child_used => Verdict::Repeat,
                Some(_) => Verdict::Reuse,
            };
            prop_assert_eq!(verdict, expected);
            match verdict {
                Verdict::Rotate => {
                    *rotated.last_mut().unwrap() = Some(now);
                    rotated.push(None);
                    family.generation += 1;
                }
                Verdict::Reuse => {
                    over = true;
                    family.ended = true;
                }
                Verdict::Repeat | Verdict::Refuse(_) => {}
            }
        }
    }
}
