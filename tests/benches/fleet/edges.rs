//! Simulated edges: each holds one connection, polls the feed as the filter does, and knows how far it has it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate_shared::wire::feed::TrustAnchor;

use crate::clock;

/// What the filter does after failures: from 250 ms doubling to ten seconds, at random below that.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a poll is held.
const HOLD_SECONDS: u64 = 25;
/// So many different answers are remembered.
const OPENED_MAX: usize = 4_096;
const SECONDS_MAX: usize = 3_600;

/// Where an answer leads.
#[derive(Clone, Debug)]
struct Place {
    epoch: Arc<str>,
    position: u64,
}

/// What all edges share.
pub(crate) struct Fleet {
    address: SocketAddr,
    anchor: TrustAnchor,
    begun: Instant,
    /// What was opened: of thousands of edges that get the same bytes, one opens them.
    opened: Mutex<HashMap<Vec<u8>, Place>>,
    pub(crate) answers: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) failures: AtomicU64,
    /// Requests in each second since the beginning.
    each_second: Vec<AtomicU64>,
    target: AtomicU64,
    /// When each edge came to the target, in microseconds since the beginning.
    arrived: Mutex<Vec<u64>>,
    pub(crate) waiting: AtomicUsize,
    over: AtomicBool,
}

/// Figures at an instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) answers: u64,
    pub(crate) bytes: u64,
    pub(crate) at: Instant,
}

impl Fleet {
    pub(crate) fn new(address: SocketAddr, anchor: TrustAnchor) -> Arc<Self> {
        Arc::new(Self {
            address,
            anchor,
            begun: clock::now(),
            opened: Mutex::default(),
            answers: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            each_second: (0..SECONDS_MAX).map(|_| AtomicU64::new(0)).collect(),
            target: AtomicU64::new(u64::MAX),
            arrived: Mutex::default(),
            waiting: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// Has an edge follow for each credential.
    pub(crate) fn follow(self: &Arc<Self>, credentials: Vec<String>) -> JoinSet<()> {
        let mut edges = JoinSet::new();
        for (number, credential) in credentials.into_iter().enumerate() {
            let fleet = Arc::clone(self);
            edges.spawn(async move {
                // They do not all start in one instant.
                tokio::time::sleep(Duration::from_micros(300 * number as u64)).await;
                Edge { fleet, credential, place: None, random: 0x9e37_79b9_7f4a_7c15 ^ number as u64 }
                    .run()
                    .await;
            });
        }
        edges
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn read(&self) -> Reading {
        let load = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Reading { answers: load(&self.answers), bytes: load(&self.bytes), at: clock::now() }
    }

    /// Has every edge note when it comes to this position.
    pub(crate) fn aim(&self, position: u64) {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.target.store(position, Ordering::SeqCst);
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How long after `since` each edge arrived, in ascending order, in milliseconds.
    pub(crate) fn arrivals(&self, since: Instant) -> Vec<f64> {
        let since = since.duration_since(self.begun).as_micros() as u64;
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all: Vec<f64> = arrived.iter().map(|at| at.saturating_sub(since) as f64 / 1000.0).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// The most requests in one second since then.
    pub(crate) fn busiest_second(&self, since: Instant) -> u64 {
        let first = since.duration_since(self.begun).as_secs() as usize;
        self.each_second
            .iter()
            .skip(first)
            .map(|count| count.load(Ordering::SeqCst))
            .max()
            .unwrap_or_default()
    }

    fn asked(&self) {
        if let Some(second) = self.each_second.get(self.begun.elapsed().as_secs() as usize) {
            second.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn open(&self, body: &[u8]) -> Result<Place> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = opened.get(body) {
            return Ok(place.clone());
        }
        let message = self.anchor.open(body)?.message;
        let place = Place { epoch: message.epoch.to_hex().into(), position: message.to.0 };
        if opened.len() >= OPENED_MAX {
            opened.clear();
        }
        opened.insert(body.to_vec(), place.clone());
        Ok(place)
    }
}

struct Edge {
    fleet: Arc<Fleet>,
    credential: String,
    place: Option<Place>,
    random: u64,
}

impl Edge {
    async fn run(&mut self) {
        let (mut stream, mut failures) = (None, 0);
        while !self.fleet.over.load(Ordering::SeqCst) {
            let polled =
                tokio::time::timeout(Duration::from_secs(HOLD_SECONDS + 5), self.poll(stream.take()));
            match polled.await {
                Ok(Ok(open)) => (stream, failures) = (Some(open), 0),
                Ok(Err(_)) | Err(_) => {
                    self.fleet.failures.fetch_add(1, Ordering::SeqCst);
                    failures += 1;
                    let most = BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(10)).min(BACKOFF_MAX);
                    tokio::time::sleep(most.mul_f64(self.next_random())).await;
                }
            }
        }
    }

    /// From 0 to 1 (xorshift).
    fn next_random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    async fn poll(&mut self, stream: Option<TcpStream>) -> Result<TcpStream> {
        let fleet = Arc::clone(&self.fleet);
        let mut stream = match stream {
            Some(stream) => stream,
            None => TcpStream::connect(fleet.address).await?,
        };
        let query = match &self.place {
            Some(Place { epoch, position }) => format!("?epoch={epoch}&after={position}&wait={HOLD_SECONDS}"),
            None => String::new(),
        };
        let request = format!(
            "GET /v1/edge/feed{query} HTTP/1.1\r\nhost: issuer.test\r\nauthorization: Bearer {}\r\n\r\n",
            self.credential
        );
        fleet.asked();
        fleet.waiting.fetch_add(1, Ordering::SeqCst);
        let answer = exchange(&mut stream, request.as_bytes()).await;
        fleet.waiting.fetch_sub(1, Ordering::SeqCst);
        let (length, body) = answer?;
        fleet.answers.fetch_add(1, Ordering::SeqCst);
        fleet.bytes.fetch_add(length as u64, Ordering::SeqCst);
        let place = fleet.open(&body)?;
        let before = self.place.as_ref().map_or(0, |place| place.position);
        let target = fleet.target.load(Ordering::SeqCst);
        if before < target && place.position >= target {
            let at = fleet.begun.elapsed().as_micros() as u64;
            fleet.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(at);
        }
        self.place = Some(place);
        Ok(stream)
    }
}

/// Sends a request; the length of the whole answer, which is 200, and its body.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<(usize, Vec<u8>)> {
    stream.write_all(request).await?;
    let mut answer: Vec<u8> = Vec::new();
    // Nothing is kept while there is no answer: what waits should cost little on this side, too.
    stream.readable().await?;
    let head = loop {
        if stream.read_buf(&mut answer).await? == 0 {
            bail!("the connection was closed");
        }
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = std::str::from_utf8(answer.get(..head).unwrap_or_default())?.to_ascii_lowercase();
    ensure!(text.starts_with("http/1.1 200"), "{text}");
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.context("a length")?.parse()?;
    while answer.len() < head + length {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the connection was closed");
    }
    Ok((answer.len(), answer.split_off(head)))
}
