//! The table of faults between edge and issuer, on a real Envoy with two workers: each test makes one row happen, and
//! prints what was observed.
//!
//! Rows 1 and 2 are in `outage`, row 8 in `key_rotation`, the edge's half of row 7 in `conversation`, and what a scripted
//! issuer says of rows 23 and 25 in `tests/conversations/`.

mod clocks;
mod damage;
mod order;
mod recovery;
mod slow;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tollgate_tests::client::Client;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::feed_proxy::{FeedProxy, Mode};
use tollgate_tests::issuer::IssuerOptions;
use tollgate_tests::module::Variant;
use tollgate_tests::stack::{Stack, StackOptions};

use crate::revocation;

pub(crate) const FEED: &str = "/v1/edge/feed";
/// How many polls one Envoy has under way at most, however many workers it has.
pub(crate) const POLLS_MAX: u64 = 1;
/// Longer than the longest wait after a failure, and a call after it.
const RECOVERY: Duration = Duration::from_secs(20);

/// An edge whose feed can be spoiled, with clients on every worker.
struct Edge {
    stack: Stack,
    clients: Vec<Client>,
}

impl Edge {
    /// One whose faults follow each other soon.
    async fn start() -> Self {
        Self::start_with(options(), Evidence::of_this_test().unwrap()).await
    }

    async fn start_with(options: StackOptions, evidence: Arc<Evidence>) -> Self {
        let stack = Stack::start_with(options, evidence).await.unwrap();
        revocation::add_alice(&stack).await;
        let clients = revocation::clients_on_every_worker(&stack).await;
        Self { stack, clients }
    }

    fn proxy(&self) -> &FeedProxy {
        self.stack.feed_proxy.as_ref().unwrap()
    }

    /// A token that is good.
    async fn token(&self) -> String {
        revocation::fresh_token(&self.stack).await
    }

    async fn tokens(&self, count: usize) -> Vec<String> {
        let mut tokens = Vec::new();
        for _ in 0..count {
            tokens.push(self.token().await);
        }
        tokens
    }

    async fn revoke(&self, token: &str) {
        self.stack.issuer.revoke_token(token).await.unwrap();
    }

    /// A token that every worker refuses because it was revoked.
    async fn revoked_token(&self) -> String {
        let token = self.token().await;
        self.all_come_to(200, &token).await;
        self.revoke(&token).await;
        self.all_come_to(401, &token).await;
        token
    }

    async fn answers(&self, token: &str) -> Vec<u16> {
        let mut answers = Vec::new();
        for client in &self.clients {
            answers.push(revocation::status(client, &self.stack, token).await);
        }
        answers
    }

    /// Every worker answers so, now.
    async fn all_answer(&self, status: u16, token: &str, when: &str) {
        assert_eq!(self.answers(token).await, vec![status; self.clients.len()], "{when}");
    }

    async fn all_come_to(&self, status: u16, token: &str) {
        eventually(&format!("{status} at every worker"), RECOVERY, async || {
            let answers = self.answers(token).await;
            if answers.iter().all(|answer| *answer == status) { Ok(()) } else { Err(format!("{answers:?}")) }
        })
        .await
        .unwrap();
    }

    /// Waits until so many answers of the feed were spoiled since there were `before`.
    async fn spoiled(&self, before: u64, answers: u64) {
        eventually("answers to be spoiled", 3 * RECOVERY, async || match self.proxy().tally(FEED).spoiled {
            spoiled if spoiled >= before + answers => Ok(()),
            spoiled => Err(format!("{} of {answers}", spoiled - before)),
        })
        .await
        .unwrap();
    }

    /// One of the filter's counters or gauges; 0 before the first event.
    async fn counted(&self, name: &str) -> u64 {
        let name = format!("wasmcustom.{name}");
        self.stack.envoy.stats(&name).await.unwrap().get(&name).copied().unwrap_or_default()
    }

    /// Waits until a counter has this value at least: Envoy is told at the next tick.
    async fn counts(&self, name: &str, least: u64) -> u64 {
        eventually(name, RECOVERY, async || match self.counted(name).await {
            count if count >= least => Ok(count),
            count => Err(format!("{count}, not yet {least}")),
        })
        .await
        .unwrap()
    }

    /// How many VMs were replaced, or were to be.
    async fn reloads(&self) -> u64 {
        self.stack.envoy.stats("wasm.tollgate.vm_reload").await.unwrap().values().sum()
    }

    /// Everything passes again.
    fn heal(&self) {
        self.proxy().set_mode(FEED, Mode::Pass);
    }
}

const FAILED: &str = "tollgate_feed_failures_total";
const REFUSED: &str = "tollgate_feed_messages_refused_total";

/// The edge polls ten times a second and is not held. Hashes are cheap, for there are many logins.
fn options() -> StackOptions {
    let issuer = IssuerOptions::default().with("PASSWORD__MEMORY_KIB", "8192");
    let options = StackOptions { issuer, through_feed_proxy: true, ..revocation::options(Variant::Shipped) };
    options.edit_plugin(|plugin| {
        plugin["origin"]["poll_interval_ms"] = json!(100);
        plugin["origin"]["long_poll_seconds"] = json!(0);
    })
}
