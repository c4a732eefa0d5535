//! Holds conversations with the engine itself, in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use tollgate_filter::config::Config;
use tollgate_filter::engine::{
    Call, CallFailure, CallKind, Decision, Engine, LocalData, Patience, Reply, RequestView, WAIT_MILLIS,
};
use tollgate_shared::time::{Monotonic, Now, UnixMillis, UnixSeconds};
use tollgate_shared::token::RustCrypto;

use super::{Host, Origin, Seen};

/// So many steps take in the largest snapshot of a conversation.
const STEPS_MAX: usize = 20;
const START: UnixSeconds = UnixSeconds(1_800_000_000);

struct Native {
    engine: Engine<RustCrypto, LocalData>,
    origin: Arc<Mutex<Origin>>,
    passed_millis: u64,
}

impl Native {
    fn now(&self) -> Now {
        Now {
            wall: UnixMillis(START.0 * 1000 + self.passed_millis),
            monotonic: Monotonic(5_000 + self.passed_millis),
        }
    }

    /// Makes the calls that are due; tells whether the feed was among them.
    fn exchange(&mut self) -> bool {
        let mut polled = false;
        // As often as the engine wants: a snapshot is taken in step by step. A fault is what some scripts are about.
        for _ in 0..STEPS_MAX {
            let _ = self.engine.tick(self.now());
            polled |= self.make_calls();
            if self.engine.next_tick_millis() > 1 {
                break;
            }
        }
        polled
    }

    fn make_calls(&mut self) -> bool {
        let mut polled = false;
        while let Some(Call { id, kind, path, body, .. }) = self.engine.due(self.now()) {
            polled |= kind == CallKind::Feed;
            let answer = self.origin.lock().expect("not poisoned").answer(&path, &body, self.now().wall);
            let outcome = match &answer {
                Some((status, body)) => Ok(Reply { status: *status, body }),
                None => Err(CallFailure::NoAnswer),
            };
            // A fault is what some scripts are about; what it leads to is asserted by their requests.
            let _ = self.engine.answer(id, outcome, self.now());
        }
        polled
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let metrics = self.engine.metrics(self.now());
        metrics.requests().map(|(outcome, reason, count)| (format!("{outcome}.{reason}"), count)).collect()
    }
}

impl Host for Native {
    async fn advance(&mut self, seconds: u64) -> Result<()> {
        self.passed_millis += seconds * 1000;
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        for _ in 0..200 {
            self.passed_millis += 100;
            if self.exchange() {
                return Ok(());
            }
        }
        bail!("the engine did not poll the feed for 20 seconds")
    }

    async fn request(&mut self, method: &str, path: &str, headers: &[(String, String)]) -> Result<Seen> {
        let before = self.counts();
        let pairs: Vec<(&[u8], &[u8])> =
            headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let view = RequestView { method: method.as_bytes(), path: path.as_bytes(), headers: &pairs };
        let mut decision = self.engine.check(&view, Patience::MayWait, self.now());
        if decision == Decision::Wait {
            self.exchange();
            decision = self.engine.check(&view, Patience::MayWait, self.now());
        }
        if decision == Decision::Wait {
            self.passed_millis += WAIT_MILLIS;
            decision = self.engine.check(&view, Patience::MustDecide, self.now());
        }
        let counts = self.counts();
        let counted = counts.iter().find(|(name, count)| before.get(*name) != Some(*count));
        let mut seen =
            Seen { counted: counted.context("the request was not counted")?.0.clone(), ..Seen::default() };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match decision {
            Decision::Wait => bail!("asked to wait although it must decide"),
            Decision::Refuse(refusal) => {
                seen.status = refusal.status;
                seen.headers =
                    refusal.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            }
            Decision::Admit(admission) => {
                seen.status = 200;
                seen.headers = admission
                    .respond
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.clone()))
                    .collect();
                let kept = headers.iter().filter(|(name, _)| {
                    !admission.strip.iter().any(|stripped| stripped.eq_ignore_ascii_case(name.as_bytes()))
                });
                let mut upstream: BTreeMap<String, String> =
                    kept.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
                upstream.extend(admission.set.iter().map(|(name, value)| (name.clone(), text(value))));
                seen.upstream = Some(upstream);
            }
        }
        Ok(seen)
    }
}

#[tokio::test]
async fn every_conversation_goes_as_written_with_the_engine() -> Result<()> {
    for name in super::names()? {
        let conversation = super::load(&name)?;
        let origin = conversation.issuer(START)?;
        let plugin = conversation.plugin(&origin.lock().expect("not poisoned").anchor());
        let config = Config::parse(plugin.to_string().as_bytes()).with_context(|| name.clone())?;
        let engine = Engine::new(config, RustCrypto, LocalData::default(), 42);
        let mut host = Native { engine, origin: Arc::clone(&origin), passed_millis: 0 };
        conversation.hold(&mut host, &origin, START).await.with_context(|| name.clone())?;
    }
    Ok(())
}
