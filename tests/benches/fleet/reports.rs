//! Has a simulated edge report what it enforces as the filter does: when that has risen, but not too often, and now and then
//! otherwise.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use crate::clock;
use crate::edges::{Answer, Fleet, Place, Random, exchange};

/// Between two reports lies at least the one, and at most the other.
const SPACING: Duration = Duration::from_millis(250);
const INTERVAL: Duration = Duration::from_secs(10);
/// A report that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What reports for an edge.
pub(crate) struct Reporter {
    fleet: Arc<Fleet>,
    number: usize,
    credential: String,
    places: watch::Receiver<Option<Place>>,
    random: Random,
}

impl Reporter {
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        number: usize,
        credential: String,
        places: watch::Receiver<Option<Place>>,
    ) -> Self {
        // Not the numbers of its polls.
        Self { fleet, number, credential, places, random: Random::new(!(number as u64)) }
    }

    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        while !self.fleet.is_over() {
            // What waits for its turn has not been sent yet.
            let Ok(turn) = self.fleet.report_pool.turns.acquire().await else { return };
            let last = clock::now();
            let place = self.places.borrow().clone();
            let sent = tokio::time::timeout(PATIENCE, self.report(place.as_ref())).await;
            drop(turn);
            if let Ok(Ok(())) = sent {
                failures = 0;
                self.fleet.reports.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(SPACING.saturating_sub(last.elapsed())).await;
                self.until_due(last, place.map(|place| place.position)).await;
            } else {
                self.fleet.reports_failed.fetch_add(1, Ordering::SeqCst);
                failures += 1;
                let pause = self.random.backoff(failures).max(SPACING.saturating_sub(last.elapsed()));
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Until it is elsewhere than it reported, or should give a sign of life.
    async fn until_due(&mut self, last: Instant, reported: Option<u64>) {
        let places = &mut self.places;
        let elsewhere = async {
            let position = |place: &Option<Place>| place.as_ref().map(|place| place.position);
            if places.wait_for(|place| position(place) != reported).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = elsewhere => {}
            () = tokio::time::sleep(INTERVAL.saturating_sub(last.elapsed())) => {}
        }
    }

    async fn report(&self, place: Option<&Place>) -> Result<()> {
        let millis = |since: Instant| since.elapsed().as_millis() as u64;
        let body = json!({
            "edge": format!("edge-{}", self.number),
            "instance": format!("{:032x}", self.number),
            "host": "native",
            "version": env!("CARGO_PKG_VERSION"),
            "workers": 2,
            "epoch": place.map(|place| &*place.epoch),
            "position": place.map(|place| place.position),
            "enforced": place.map(|place| place.position),
            "enforced_ago_ms": place.map_or(0, |place| millis(place.since)),
            "state_age_ms": place.map(|place| millis(place.proven_at)),
            "issuer_state": "closed",
        })
        .to_string();
        let request = format!(
            "POST /v1/edge/heartbeat HTTP/1.1\r\nhost: issuer.test\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.credential,
            body.len()
        );
        let pool = &self.fleet.report_pool;
        let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        self.fleet.asked();
        if let Some(mut stream) = idle
            && let Ok(answer) = exchange(&mut stream, request.as_bytes()).await
        {
            return pool.taken(stream, &answer);
        }
        // A connection that was idle may have been closed: that is no failure.
        let mut stream = self.fleet.connect().await?;
        let answer = exchange(&mut stream, request.as_bytes()).await?;
        pool.taken(stream, &answer)
    }
}

/// The connections that reports are sent on, as a load balancer before the issuer has them: fewer than there are edges, or twice as
/// many descriptors would be needed as a process may have on some machines.
#[derive(Debug)]
pub(crate) struct Pool {
    turns: Semaphore,
    idle: Mutex<Vec<TcpStream>>,
}

/// So many connections for reports there are at most.
pub(crate) const POOL_MAX: usize = 512;

impl Default for Pool {
    fn default() -> Self {
        Self { turns: Semaphore::new(POOL_MAX), idle: Mutex::default() }
    }
}

impl Pool {
    fn taken(&self, stream: TcpStream, answer: &Answer) -> Result<()> {
        ensure!(answer.status == 200, "a report was answered with {}", answer.status);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Ok(())
    }
}
