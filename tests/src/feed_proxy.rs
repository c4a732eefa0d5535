//! An HTTP proxy before the issuer: it spoils answers in the way that a test says at the moment, and counts what it sees.
//!
//! What it carries it does not understand: it looks at methods, paths and queries, never into a body. A mode is for all
//! paths that begin with a prefix; everything else passes.

mod body;
mod exchange;
mod tally;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::accepting::serve_each;
use crate::client::{Client, Response};
use exchange::Broken;

pub use tally::Tally;

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is given as it is.
    Pass,
    /// It is given so much later.
    Delay(Duration),
    /// Its body comes at so many bytes a second.
    Bandwidth(u64),
    /// There is none until the mode changes; then the request is treated by the new one.
    Hang,
    /// The connection is reset instead.
    Reset,
    /// There is another one, of this status.
    Status(u16),
    /// There is another one, of status 200, with a page for people.
    Html,
    /// Its body ends after so many bytes, or before its last byte if it has no more than those.
    Truncate(usize, Ending),
    /// The lowest bit of this byte of its body is another one; of the last byte if there are fewer.
    Flip(usize),
    /// The first answer that passed to a request of this kind is given instead.
    ReplayOld(Kind),
    /// It is swallowed, and one given that leaves out the next change: what the issuer says to who is one further. A request
    /// that has nothing gets its answer.
    Gap,
    /// It is given to this request and to the next.
    Duplicate,
    /// It is given to the next request, and this one gets what comes after it.
    Reorder,
}

/// How a body that is cut ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As if it were whole: its length is announced as what is left of it.
    Framed,
    /// In the middle: the length that was announced does not come, and the connection ends.
    Cut,
}

/// What a request says that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing, so that it is told everything.
    Whole,
    /// Everything up to a position: its query has `after`.
    After,
}

/// The proxy. Its port stays the same for as long as it lives; dropping it cuts everything.
#[derive(Debug)]
pub struct FeedProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl FeedProxy {
    /// Starts it on a port that the system picks, with everything passing.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("binding the proxy")?;
        let address = listener.local_addr()?;
        let (rules, _) = watch::channel(Rules { target, rules: Vec::new() });
        let client = Client::new().timeout(PATIENCE);
        let shared = Arc::new(Shared { rules, memory: Mutex::default(), client });
        let served = Arc::clone(&shared);
        let serving =
            tokio::spawn(serve_each(listener, move |stream| connection(stream, Arc::clone(&served))));
        Ok(Self { address, shared, serving })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Treats answers to requests whose path begins with `prefix` by `mode` from now on. Requests that are under way are
    /// treated by it as well: they are sent to the target again if it is asked at all.
    pub fn set_mode(&self, prefix: &str, mode: Mode) {
        self.shared.rule(prefix, mode, None);
    }

    /// The same for so many answers; after that everything passes.
    pub fn spoil(&self, prefix: &str, mode: Mode, answers: u64) {
        self.shared.rule(prefix, mode, Some(answers));
    }

    /// Changes the target of requests to come.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.rules.send_modify(|rules| rules.target = target);
    }

    /// What it has seen of requests whose path begins with `prefix`.
    pub fn tally(&self, prefix: &str) -> Tally {
        Tally::sum(self.shared.memory().tallies.iter().filter(|(place, _)| place.starts_with(prefix)))
    }
}

impl Drop for FeedProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Longer than any request is held.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Shared {
    rules: watch::Sender<Rules>,
    memory: Mutex<Memory>,
    client: Client,
}

#[derive(Clone, Debug)]
struct Rules {
    target: SocketAddr,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    prefix: String,
    mode: Mode,
    left: Option<u64>,
}

/// What was seen, by the first three segments of the path.
#[derive(Debug, Default)]
struct Memory {
    first: BTreeMap<(String, Kind), Response>,
    owed: BTreeMap<String, VecDeque<Response>>,
    tallies: BTreeMap<String, Tally>,
}

impl Rules {
    fn mode(&self, path: &str) -> Mode {
        self.rules.iter().find(|rule| path.starts_with(&rule.prefix)).map_or(Mode::Pass, |rule| rule.mode)
    }
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rule(&self, prefix: &str, mode: Mode, left: Option<u64>) {
        self.rules.send_modify(|rules| {
            rules.rules.retain(|rule| rule.prefix != prefix);
            if mode != Mode::Pass && left != Some(0) {
                rules.rules.push(Rule { prefix: prefix.to_owned(), mode, left });
            }
        });
    }

    /// Takes one of the answers that are to be treated so; `false` when they no longer are.
    fn claim(&self, path: &str, mode: Mode) -> bool {
        if mode == Mode::Pass {
            return true;
        }
        let mut claimed = false;
        self.rules.send_if_modified(|rules| {
            let found = rules.rules.iter_mut().find(|rule| path.starts_with(&rule.prefix));
            let Some(rule) = found.filter(|rule| rule.mode == mode) else { return false };
            claimed = true;
            rule.left = rule.left.map(|left| left.saturating_sub(1));
            let over = rule.left == Some(0);
            rules.rules.retain(|rule| rule.left != Some(0));
            over
        });
        claimed
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let reset = Arc::new(AtomicBool::new(false));
    let exchange = service_fn(|request| {
        let (shared, reset) = (Arc::clone(&shared), Arc::clone(&reset));
        async move {
            let answered = exchange::answer(shared, request).await;
            reset.store(matches!(answered, Err(Broken::Reset)), Ordering::SeqCst);
            answered
        }
    });
    let mut serving =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), exchange);
    // Whoever is cut off or goes early has nobody to be told.
    (&mut serving).await.ok();
    if reset.load(Ordering::SeqCst) {
        // Closing with nothing to linger for sends a reset.
        serving.into_parts().io.into_inner().set_zero_linger().ok();
    }
}

#[cfg(test)]
mod tests;
