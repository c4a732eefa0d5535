//! Holds conversations with the engine itself, in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};
use tollgate_filter::config::Config;
use tollgate_filter::engine::{
    Body, Call, CallFailure, CallKind, Decision, Engine, LocalData, Patience, Reply, RequestView, WAIT_MILLIS,
};
use tollgate_shared::time::{Monotonic, Now, UnixMillis, UnixSeconds};
use tollgate_shared::token::RustCrypto;

use super::origin::OriginChange;
use super::{Conversation, Host, Origin, Seen};

/// So many steps take in the largest snapshot of a conversation.
const STEPS_MAX: usize = 20;
const START: UnixSeconds = UnixSeconds(1_800_000_000);

struct Native {
    engine: Engine<RustCrypto, LocalData>,
    origin: Arc<Mutex<Origin>>,
    passed_millis: u64,
    /// So far the edge's date is ahead of what it should be, or behind it.
    date_ahead_millis: i64,
}

impl Native {
    fn now(&self) -> Now {
        Now {
            wall: UnixMillis(self.issuer_date().0.saturating_add_signed(self.date_ahead_millis)),
            monotonic: Monotonic(5_000 + self.passed_millis),
        }
    }

    fn issuer_date(&self) -> UnixMillis {
        UnixMillis(START.0 * 1000 + self.passed_millis)
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
            let answer = self.origin.lock().expect("not poisoned").answer(&path, &body, self.issuer_date());
            let outcome = match &answer {
                Some((status, body)) => Ok(Reply { status: *status, body: Body::Here(body) }),
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

impl Conversation {
    /// The engine as this conversation configures it, with the issuer that it begins with.
    fn natively(&self) -> Result<Native> {
        let origin = self.issuer(START)?;
        let plugin = self.plugin(&origin.lock().expect("not poisoned").anchor());
        let config = Config::parse(plugin.to_string().as_bytes())?;
        let engine = Engine::new(config, RustCrypto, LocalData::default(), 42);
        Ok(Native { engine, origin, passed_millis: 0, date_ahead_millis: 0 })
    }
}

#[tokio::test]
async fn every_conversation_goes_as_written_with_the_engine() -> Result<()> {
    for name in super::names()? {
        let conversation = super::load(&name)?;
        let mut host = conversation.natively().with_context(|| name.clone())?;
        let origin = Arc::clone(&host.origin);
        conversation.hold(&mut host, &origin, START).await.with_context(|| name.clone())?;
    }
    Ok(())
}

/// No script of a conversation can say this: Envoy's date is that of its machine.
#[tokio::test]
async fn an_edge_whose_date_steps_expires_nothing_good_for_long_and_brings_nothing_revoked_back() -> Result<()>
{
    const MINUTE: i64 = 60_000;
    let conversation: Conversation = serde_saphyr::from_str(
        "{ about: dates, rules: [{ match: { prefix: / }, requires: token }], steps: [],
           tokens: { good: { sub: u_1, index: 1, lives: 900 }, revoked: { sub: u_2, index: 2, lives: 900 } } }",
    )?;
    let mut host = conversation.natively()?;
    let tokens = conversation.mint(&host.origin.lock().expect("not poisoned"), START);
    let revoke: OriginChange = serde_saphyr::from_str("revoke: [2]")?;
    host.origin.lock().expect("not poisoned").change(&revoke)?;
    let mut seen = Vec::new();
    for minutes in [0, 10, 0, 60, 0, -10, 0, -120, 0] {
        host.date_ahead_millis = minutes * MINUTE;
        host.settle().await?;
        let mut told = Vec::new();
        for name in ["good", "revoked"] {
            let bearer = ("authorization".to_owned(), format!("Bearer {}", tokens[name]));
            told.push(host.request("GET", "/x", &[bearer]).await?.counted);
        }
        // By a date that is wrong a token may be over or not yet there; but never good that is not.
        let good = match minutes {
            60 => "refused.expired",
            ..0 => "refused.issued_in_future",
            _ => "admitted.token",
        };
        let revoked = if good == "admitted.token" { "refused.revoked_token" } else { good };
        assert_eq!(told, [good, revoked], "{minutes} minutes ahead");
        seen.push(format!("{minutes:+} min: {}, {}", told[0], told[1]));
    }
    println!("row 7: the edge's date steps → {}", seen.join("; "));
    Ok(())
}
