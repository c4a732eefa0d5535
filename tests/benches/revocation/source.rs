//! An issuer that says what the benchmark gives it: its feed alone, in the real messages under a real signature.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tollgate_shared::quota::Plan;
use tollgate_shared::revocation::{
    BLOCK_INDICES, BlockExpiry, Delta, Epoch, FeedChange, FeedMessage, Place, Position, RevocationSet,
    SEGMENT_POSITIONS, StatusIndex,
};
use tollgate_shared::time::{UnixMillis, UnixSeconds};
use tollgate_shared::token::SigningKey;
use tollgate_shared::wire::feed::{PART_BYTES, Snapshot, SnapshotLayout, WHOLE_BYTES, seal, seal_snapshot};
use tollgate_tests::client::raw;

/// So many indices are live.
pub(crate) const LIVE: u32 = 100_000_000;
const EPOCH: Epoch = Epoch([1; 16]);

/// The issuer.
#[derive(Clone)]
pub(crate) struct Source {
    shared: Arc<Shared>,
}

struct Shared {
    feed_key: SigningKey,
    token_key: SigningKey,
    set: Mutex<RevocationSet>,
    log: Mutex<Vec<StatusIndex>>,
    /// The positions before the log: those of the snapshot at the start.
    base: u64,
    snapshot: Vec<u8>,
    layout: SnapshotLayout,
    end: watch::Sender<u64>,
    heartbeats: Mutex<Vec<Value>>,
}

/// Random numbers that are the same in each run (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// So many indices at random among those that are live, and when each block is over.
pub(crate) fn random_set(count: u64) -> RevocationSet {
    let mut random = Random(count);
    let mut set = RevocationSet::default();
    while set.indices.len() < count {
        let missing = count - set.indices.len();
        set.indices.extend((0..missing).map(|_| StatusIndex((random.next() % u64::from(LIVE)) as u32)));
    }
    let blocks = 0..LIVE.div_ceil(BLOCK_INDICES);
    let expires_at = |block: u32| UnixSeconds(now().seconds().0 + 900 + u64::from(block));
    set.indices.learn_expiries(
        blocks.map(|block| BlockExpiry { block: block as u16, expires_at: expires_at(block) }),
    );
    set
}

#[expect(clippy::disallowed_methods, reason = "a real Envoy runs on the real clock")]
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(since.as_millis() as u64)
}

impl Source {
    /// One that has revoked `set`, at a position as high as that has members.
    pub(crate) fn new(set: RevocationSet) -> Result<Self> {
        let (feed_key, token_key) = (SigningKey::from_seed(&[3; 32]), SigningKey::from_seed(&[4; 32]));
        let base = set.indices.len().next_multiple_of(SEGMENT_POSITIONS);
        let (snapshot, layout) = snapshot_of(&set, base, &feed_key, &token_key)?;
        let (end, _) = watch::channel(base);
        let (set, log, heartbeats) = (Mutex::new(set), Mutex::default(), Mutex::default());
        Ok(Self {
            shared: Arc::new(Shared {
                feed_key,
                token_key,
                set,
                log,
                base,
                snapshot,
                layout,
                end,
                heartbeats,
            }),
        })
    }

    pub(crate) fn anchor(&self) -> String {
        use base64ct::{Base64UrlUnpadded, Encoding};
        Base64UrlUnpadded::encode_string(&self.shared.feed_key.public_bytes())
    }

    pub(crate) fn token_key(&self) -> &SigningKey {
        &self.shared.token_key
    }

    pub(crate) fn snapshot_bytes(&self) -> usize {
        self.shared.snapshot.len()
    }

    /// Whether this is revoked.
    pub(crate) fn has(&self, index: StatusIndex) -> bool {
        self.shared.set.lock().unwrap_or_else(PoisonError::into_inner).indices.contains(index)
    }

    /// Revokes these; tells the position.
    pub(crate) fn revoke(&self, indices: &[StatusIndex]) -> u64 {
        let mut log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(indices);
        self.shared
            .set
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .indices
            .extend(indices.iter().copied());
        let end = self.shared.base + log.len() as u64;
        self.shared.end.send_replace(end);
        end
    }

    /// The answer to who has everything up to `after`.
    pub(crate) fn delta(&self, after: u64, until: Option<u64>) -> Result<Vec<u8>> {
        let log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.shared.base + log.len() as u64;
        let to = end.min((after / SEGMENT_POSITIONS + 1) * SEGMENT_POSITIONS).min(until.unwrap_or(u64::MAX));
        let place = |position: u64| (position - self.shared.base) as usize;
        let mut revoked = log.get(place(after)..place(to)).context("the log")?.to_vec();
        revoked.sort_unstable();
        let set = self.shared.set.lock().unwrap_or_else(PoisonError::into_inner);
        let mut blocks: Vec<BlockExpiry> =
            revoked.iter().filter_map(|index| set.indices.expiry(index.block())).collect();
        blocks.dedup();
        let message = FeedMessage {
            epoch: EPOCH,
            to: Position(to),
            head: Position(end),
            as_of: now(),
            change: FeedChange::Delta(Delta { from: Position(after), revoked, blocks, cutoffs: Vec::new() }),
            keys: None,
            plans: None,
        };
        seal(&message, &self.shared.feed_key).context("sealing")
    }

    async fn answer(&self, path_and_query: &str) -> Result<Vec<u8>> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let number = |name: &str| -> Option<u64> {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?.parse().ok()
        };
        if let Some(segment) = path.strip_prefix("/v1/edge/history/") {
            let from: u64 = segment.split_once('/').context("a segment")?.1.parse()?;
            return self.delta(from, Some(from + SEGMENT_POSITIONS));
        }
        let Shared { snapshot, layout, .. } = &*self.shared;
        if let Some(part) = path.strip_prefix("/v1/edge/snapshot/") {
            let first: usize = part.split_once('/').context("a part")?.1.parse()?;
            let part = layout.part(first, PART_BYTES).and_then(|part| snapshot.get(part));
            return Ok(part.context("no such part")?.to_vec());
        }
        let Some(after) = number("after") else {
            let whole_bytes = if query.contains("pieces=apart") { WHOLE_BYTES } else { usize::MAX };
            return Ok(snapshot.get(layout.first(whole_bytes)).context("the snapshot")?.to_vec());
        };
        let wait = Duration::from_secs(number("wait").unwrap_or_default());
        let mut end = self.shared.end.subscribe();
        // Late or not, what there is is told.
        let _ = tokio::time::timeout(wait, end.wait_for(|end| *end > after)).await;
        self.delta(after, number("until"))
    }

    /// Serves it on a port that the system picks.
    pub(crate) async fn serve(&self) -> Result<SocketAddr> {
        let source = self.clone();
        let answer = move |request: Request| {
            let source = source.clone();
            async move {
                let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
                if path.starts_with("/v1/edge/heartbeat") {
                    let body = axum::body::to_bytes(request.into_body(), 1 << 16).await.unwrap_or_default();
                    let mut heartbeats =
                        source.shared.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
                    heartbeats.extend(serde_json::from_slice::<Value>(&body));
                    return Response::new(Body::from(
                        json!({ "interval_seconds": 10, "ttl_seconds": 30 }).to_string(),
                    ));
                }
                source.answer(&path).await.map_or_else(
                    |_| {
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                        response
                    },
                    |body| Response::new(Body::from(body)),
                )
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let listener = listener.into_std()?;
        // Not among the tasks that measure: those would wait while it makes messages.
        apart(async move {
            let listener = TcpListener::from_std(listener)?;
            axum::serve(listener, Router::new().fallback(answer)).await.map_err(anyhow::Error::from)
        })?;
        Ok(address)
    }

    /// The filter's configuration for it.
    pub(crate) fn plugin(&self) -> Value {
        json!({
            "providers": [{ "name": "home", "issuer": "https://issuer.test", "audiences": ["api"], "keys": "feed" }],
            "origin": {
                "cluster": "issuer",
                "authority": "issuer.test",
                "edge_id": "bench",
                "credential": "none",
                "trust_anchor": self.anchor(),
                "stale_after_seconds": 60,
            },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "scopes": ["read"] } }],
        })
    }
}

fn snapshot_of(
    set: &RevocationSet,
    position: u64,
    feed_key: &SigningKey,
    token_key: &SigningKey,
) -> Result<(Vec<u8>, SnapshotLayout)> {
    let place = Place { epoch: EPOCH, position: Position(position), as_of: now() };
    let keys = json!({ "keys": [token_key.public_jwk()] }).to_string();
    let plans = Plan::defaults();
    let snapshot = Snapshot { place, head: Position(position), revoked: set, keys: &keys, plans: &plans };
    seal_snapshot(snapshot, feed_key).context("sealing")
}

/// Runs this on a thread of its own; what comes of it is heard there.
pub(crate) fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<oneshot::Receiver<Result<T>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (heard, result) = oneshot::channel();
    std::thread::Builder::new().spawn(move || heard.send(runtime.block_on(work)))?;
    Ok(result)
}

/// What the VM that meets this request says to a command of the probe build.
pub(crate) async fn probe(edge: SocketAddr, command: &str) -> Result<Value> {
    let request = format!(
        "GET /probe HTTP/1.1\r\nhost: probe\r\nx-tollgate-probe: {command}\r\nconnection: close\r\n\r\n"
    );
    let answer = raw(edge, request.as_bytes()).await?;
    answer.response.context("the probe was not answered")?.json()
}
