//! Simulated edges: each polls the feed on a connection of its own, reports, and knows how far it has the feed; it keeps nothing of
//! what it is told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tollgate_shared::revocation::{FeedChange, SEGMENT_POSITIONS};
use tollgate_shared::wire::feed::TrustAnchor;

use crate::clock;
use crate::reports::{Pool, Reporter};

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
struct Told {
    epoch: Arc<str>,
    position: u64,
    head: u64,
    is_snapshot: bool,
}

/// What an edge has.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) epoch: Arc<str>,
    pub(crate) position: u64,
    /// Since when.
    pub(crate) since: Instant,
    /// As of when, nearly.
    pub(crate) proven_at: Instant,
    known_end: u64,
    /// After a snapshot, which may have been made long ago.
    is_unproven: bool,
}

/// What all edges share.
pub(crate) struct Fleet {
    address: SocketAddr,
    anchor: TrustAnchor,
    begun: Instant,
    /// What was opened: of thousands of edges that get the same bytes, one opens them.
    opened: Mutex<HashMap<Vec<u8>, Told>>,
    pub(crate) answers: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) segments: AtomicU64,
    pub(crate) reports: AtomicU64,
    pub(crate) reports_failed: AtomicU64,
    pub(crate) report_pool: Pool,
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
    pub(crate) reports: u64,
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
            segments: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            reports_failed: AtomicU64::new(0),
            report_pool: Pool::default(),
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
                let (place, places) = watch::channel(None);
                let reporter = Reporter::new(Arc::clone(&fleet), number, credential.clone(), places);
                let random = Random::new(number as u64);
                let mut edge = Edge { fleet, credential, place, missing: None, failures: 0, random };
                tokio::join!(edge.run(), reporter.run());
            });
        }
        edges
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(crate) async fn connect(&self) -> Result<TcpStream> {
        Ok(TcpStream::connect(self.address).await?)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn read(&self) -> Reading {
        let load = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Reading {
            answers: load(&self.answers),
            reports: load(&self.reports),
            bytes: load(&self.bytes),
            at: clock::now(),
        }
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

    pub(crate) fn asked(&self) {
        if let Some(second) = self.each_second.get(self.begun.elapsed().as_secs() as usize) {
            second.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn open(&self, body: &[u8]) -> Result<Told> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = opened.get(body) {
            return Ok(told.clone());
        }
        let message = self.anchor.open(body)?.message;
        let told = Told {
            epoch: message.epoch.to_hex().into(),
            position: message.to.0,
            head: message.head.0,
            is_snapshot: matches!(message.change, FeedChange::Snapshot { .. }),
        };
        if opened.len() >= OPENED_MAX {
            opened.clear();
        }
        opened.insert(body.to_vec(), told.clone());
        Ok(told)
    }
}

/// Numbers that differ from edge to edge (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(number: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ number)
    }

    /// How long to wait after so many failures on end.
    pub(crate) fn backoff(&mut self, failures: u32) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let share = (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        let doublings = failures.saturating_sub(1).min(10);
        BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX).mul_f64(share)
    }
}

struct Edge {
    fleet: Arc<Fleet>,
    credential: String,
    place: watch::Sender<Option<Place>>,
    /// The segment that the issuer does not have.
    missing: Option<u64>,
    failures: u32,
    random: Random,
}

impl Edge {
    async fn run(&mut self) {
        let mut stream = None;
        while !self.fleet.is_over() {
            let polled =
                tokio::time::timeout(Duration::from_secs(HOLD_SECONDS + 5), self.poll(stream.take()));
            match polled.await {
                Ok(Ok(open)) => stream = Some(open),
                Ok(Err(_)) | Err(_) => {
                    self.fleet.failures.fetch_add(1, Ordering::SeqCst);
                    self.failures += 1;
                    tokio::time::sleep(self.random.backoff(self.failures)).await;
                }
            }
        }
    }

    /// What to ask for: the path, whether that is a segment, and whether the answer may be held.
    fn request(&self) -> (String, bool, bool) {
        let place = self.place.borrow();
        let Some(Place { epoch, position, known_end, is_unproven, .. }) = &*place else {
            return ("/v1/edge/feed?pieces=apart".to_owned(), false, false);
        };
        let behind = known_end.saturating_sub(*position);
        let at_segment = position.is_multiple_of(SEGMENT_POSITIONS) && self.missing != Some(*position);
        if behind >= SEGMENT_POSITIONS && at_segment {
            return (format!("/v1/edge/history/{epoch}/{position}"), true, false);
        }
        let may_be_held = self.failures == 0 && behind == 0 && !is_unproven;
        let hold = if may_be_held { HOLD_SECONDS } else { 0 };
        (format!("/v1/edge/feed?pieces=apart&epoch={epoch}&after={position}&wait={hold}"), false, may_be_held)
    }

    async fn poll(&mut self, stream: Option<TcpStream>) -> Result<TcpStream> {
        let fleet = Arc::clone(&self.fleet);
        let mut stream = match stream {
            Some(stream) => stream,
            None => fleet.connect().await?,
        };
        let (path, is_segment, may_be_held) = self.request();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: issuer.test\r\nauthorization: Bearer {}\r\n\r\n",
            self.credential
        );
        fleet.asked();
        let waits = may_be_held.then(|| Waits::new(&fleet.waiting));
        let answer = exchange(&mut stream, request.as_bytes()).await;
        drop(waits);
        let Answer { status, length, body } = answer?;
        fleet.answers.fetch_add(1, Ordering::SeqCst);
        fleet.bytes.fetch_add(length as u64, Ordering::SeqCst);
        if is_segment && status == 404 {
            self.missing = self.place.borrow().as_ref().map(|place| place.position);
            return Ok(stream);
        }
        ensure!(status == 200, "{path} was answered with {status}");
        if is_segment {
            fleet.segments.fetch_add(1, Ordering::SeqCst);
        }
        let told = fleet.open(&body)?;
        self.take(told);
        Ok(stream)
    }

    fn take(&mut self, told: Told) {
        let now = clock::now();
        let Told { epoch, position, head, is_snapshot } = told;
        let known = self.place.borrow().clone();
        let before = known.as_ref().map_or(0, |place| place.position);
        let same = known.filter(|place| place.epoch == epoch);
        let known_end = same.as_ref().map_or(head, |place| place.known_end.max(head));
        let since = same.filter(|place| place.position == position).map_or(now, |place| place.since);
        let target = self.fleet.target.load(Ordering::SeqCst);
        if before < target && position >= target {
            let at = now.duration_since(self.fleet.begun).as_micros() as u64;
            self.fleet.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(at);
        }
        // Not by a snapshot: when what should follow on it fails each time, each takes longer to be asked for.
        if !is_snapshot {
            self.failures = 0;
        }
        let is_unproven = is_snapshot;
        self.place.send_replace(Some(Place {
            epoch,
            position,
            since,
            proven_at: now,
            known_end,
            is_unproven,
        }));
    }
}

/// One poll that may be held, also when it is given up.
struct Waits<'f>(&'f AtomicUsize);

impl<'f> Waits<'f> {
    fn new(waiting: &'f AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of all of it, in bytes.
    length: usize,
    body: Vec<u8>,
}

/// Sends a request, and reads the answer to its end.
pub(crate) async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<Answer> {
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
    let status = text.split(' ').nth(1).context("a status")?.parse()?;
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.context("a length")?.parse()?;
    while answer.len() < head + length {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the connection was closed");
    }
    Ok(Answer { status, length: answer.len(), body: answer.split_off(head) })
}
