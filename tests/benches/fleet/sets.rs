//! How many bytes a set of random revocations is said in, next to what it has in information, and how long that takes.

use std::time::Instant;

use anyhow::{Context as _, Result};
use tollgate_issuer::feed::{History, Whole};
use tollgate_issuer::store::{FeedEntry, FeedEntryChange};
use tollgate_shared::quota::Plan;
use tollgate_shared::revocation::{Epoch, Position, StatusIndex};
use tollgate_shared::time::{UnixMillis, UnixSeconds};
use tollgate_shared::token::SigningKey;
use tollgate_shared::wire::feed::{Snapshot, seal, seal_snapshot};

use crate::clock;

const INDICES: u64 = 100_000_000;

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
pub(crate) fn run() -> Result<()> {
    let key = SigningKey::from_seed(&[3; 32]);
    let keys = serde_json::json!({ "keys": [key.public_jwk()] }).to_string();
    for count in [1_000_000, 10_000_000] {
        let mut history = History::new(Epoch([1; 16]), 65_536);
        let mut entries = vec![FeedEntryChange::Keys(keys.clone()), FeedEntryChange::Plans(Plan::defaults())];
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut read = std::time::Duration::ZERO;
        let mut position = 0;
        loop {
            let left = count - history.whole().map_or(0, |whole| whole.revoked.indices.len());
            for _ in 0..left.min(4_096) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let index = StatusIndex(u32::try_from(random % INDICES)?);
                entries.push(FeedEntryChange::Index { index, expires_at: UnixSeconds(10_000_000_000) });
            }
            if entries.is_empty() {
                break;
            }
            let page: Vec<FeedEntry> = entries.drain(..).map(|change| next(&mut position, change)).collect();
            let begun = clock::now();
            history.append(page, UnixSeconds(1_800_000_000));
            read += begun.elapsed();
        }
        history.looked(UnixMillis(1_800_000_000_000));
        let (body, took) = timed(|| {
            let Whole { place, revoked, keys, plans } = history.whole()?;
            let head = place.position;
            seal_snapshot(Snapshot { place, head, revoked: &revoked, keys: &keys, plans: &plans }, &key)
                .map(|(body, _)| body)
        });
        let body = body.context("a snapshot")?.len();
        let entropy = bits(count as f64, INDICES as f64) / 8.0;
        let at = history.head();
        let change =
            FeedEntryChange::Index { index: StatusIndex(77), expires_at: UnixSeconds(10_000_000_000) };
        history.append(vec![next(&mut position, change)], UnixSeconds(1_800_000_000));
        history.looked(UnixMillis(1_800_000_001_000));
        let delta = history.delta(at, None).and_then(|message| seal(&message, &key)).context("a delta")?;
        println!(
            "{count} of {INDICES} indices revoked at random: snapshot {body} bytes, {:.3} of the {entropy:.0} bytes of information \
             (log2 of the number of such sets), {:.2} bits a revocation; made in {:.0} ms; taken in from the log in {:.0} ms; \
             one more is a delta of {} bytes",
            body as f64 / entropy,
            body as f64 * 8.0 / count as f64,
            clock::millis(took),
            clock::millis(read),
            delta.len()
        );
        let _ = Position(position);
    }
    Ok(())
}

fn next(position: &mut u64, change: FeedEntryChange) -> FeedEntry {
    *position += 1;
    FeedEntry { position: Position(*position), created_at: UnixSeconds(1_800_000_000), change }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, std::time::Duration) {
    let begun: Instant = clock::now();
    (work(), begun.elapsed())
}

/// log2 of the number of ways to choose `count` of `all`, by Stirling's formula.
fn bits(count: f64, all: f64) -> f64 {
    let share = count / all;
    let entropy = -share * share.log2() - (1.0 - share) * (1.0 - share).log2();
    all * entropy - 0.5 * (2.0 * std::f64::consts::PI * count * (1.0 - share)).log2()
}
