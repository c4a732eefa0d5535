//! Serves connections: bounded in number and patience, and ended in order.

mod patient;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::OpenError;
use crate::app::{App, router};
use crate::clock::Host;
use crate::config::Settings;
use crate::keys::{Existing, KeyError, write_private};
use crate::network::Peer;
use crate::store::StoreError;
use crate::store::redis::{FeedNews, Redis};
use patient::Patient;

/// How long the head of a request may take, and how long a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The most that a connection keeps of what it has read and nobody has taken, in bytes: the longest head of a request. By
/// default it would be six times as much.
const READ_BYTES_MAX: usize = 64 * 1024;
/// How long requests have to finish once the service closes.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first requests wait for what was hot before.
const WARM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last changes may take to be told to other replicas.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon what another process committed is noticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How often what edges say of themselves is written down, and read of other replicas.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How soon what a crash left unpublished is published.
const REST_INTERVAL: Duration = Duration::from_secs(1);
/// The longest between two looks at the schedule of the keys, in seconds.
const ROTATION_SECONDS_MAX: u64 = 60;
/// How often there is housekeeping.
const HOUSE_INTERVAL: Duration = Duration::from_secs(60);
/// The pause after a connection could not be accepted: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the service ended otherwise than it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It could not start.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The feed could not be brought up to date.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ready file could not be written.
    #[error(transparent)]
    ReadyFile(#[from] KeyError),
    /// The listener has no address.
    #[error("listener: {0}")]
    Listener(#[from] std::io::Error),
}

/// Runs the issuer on `listener` until `shutdown` is done; then polls are answered, readiness fails, and requests have ten
/// seconds to finish.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    settings: Settings,
    host: Arc<dyn Host>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let app = App::open(settings, host).await?;
    app.publish().await?;
    // Before there are events: adding a part stops all who write to the table.
    if_home_answers(&app, app.store.prepare_parts(app.host.seconds()).await).await?;
    // Before anybody is answered: what was decided before a crash is not served without.
    if_home_answers(&app, app.feed.publish_outbox().await).await?;
    // All that is in force is read once, and the polls after that find it in memory.
    if_home_answers(&app, app.feed.look().await).await?;
    warm(&app).await;
    let listen = listener.local_addr()?;
    let issuer = app.settings.issuer.as_str();
    if let Some(path) = &app.settings.ready_file {
        let ready = serde_json::json!({
            "listen": listen.to_string(),
            "issuer": issuer,
            "trust_anchor": app.keys.trust_anchor(),
        });
        write_private(path, format!("{ready}\n").as_bytes(), Existing::IsReplaced, &*app.host)?;
    }
    tracing::info!(%listen, issuer, data_dir = %app.settings.data_dir.display(), "ready");
    let background = [
        tokio::spawn(look(Arc::clone(&app))),
        tokio::spawn(keep_house(Arc::clone(&app))),
        tokio::spawn(publish_rest(Arc::clone(&app))),
        tokio::spawn(rotate_keys(Arc::clone(&app))),
        tokio::spawn(announce(Arc::clone(&app))),
        tokio::spawn(keep_heartbeats(Arc::clone(&app))),
    ];
    accept(&app, &listener, shutdown).await;
    for task in &background {
        task.abort();
    }
    if let Err(error) = app.keep_heartbeats().await {
        tracing::warn!(%error, "last heartbeats not kept");
    }
    if let Err(error) = app.keep_house().await {
        tracing::warn!(%error, "last housekeeping failed");
    }
    app.cache.settle(SETTLE_TIMEOUT).await;
    app.store.close().await;
    tracing::info!("closed");
    Ok(())
}

/// Lets a failure pass that is another database's than home: its users wait for it, and nobody else does.
async fn if_home_answers(app: &App, result: Result<(), StoreError>) -> Result<(), StoreError> {
    if let Err(error) = result {
        app.store.ping().await?;
        tracing::warn!(%error, "done later");
    }
    Ok(())
}

/// Reads what was hot, for a while before the first request is taken, and on in the background.
async fn warm(app: &Arc<App>) {
    let warmed = Arc::clone(app);
    let warming = tokio::spawn(async move {
        match warmed.cache.warm(&warmed.store).await {
            Ok(found) => tracing::info!(found, "hot principals are in memory"),
            Err(error) => tracing::warn!(%error, "hot principals not read"),
        }
    });
    if timeout(WARM_TIMEOUT, warming).await.is_err() {
        tracing::info!("hot principals are still being read");
    }
}

/// The service as it is to one connection. What connections share is shared: with ten thousand that wait, all that each has of
/// its own counts.
fn of(
    router: &TowerToHyperService<Router>,
    peer: Peer,
) -> impl Service<
    Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future: Future<Output = Result<Response, Infallible>> + Send + 'static,
> + use<> {
    let router = router.clone();
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    })
}

async fn accept(app: &Arc<App>, listener: &TcpListener, shutdown: impl Future<Output = ()>) {
    // HTTP/1 only: the builder would otherwise wait for a connection's first bytes without a limit of time.
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(READ_BYTES_MAX);
    let router = TowerToHyperService::new(router(Arc::clone(app)));
    let graceful = GracefulShutdown::new();
    let free = Arc::new(Semaphore::new(app.settings.connections_max));
    let places = Places::default();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&free).acquire_owned().await.ok()?;
            let (stream, peer) = next_connection(listener).await;
            Some((stream, peer, permit))
        };
        let (stream, peer, permit) = tokio::select! {
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
            () = &mut shutdown => break,
        };
        // More of one address wait at its end: the connection is closed, and others find room.
        let Some(place) = Place::take(&places, peer, &app.settings) else { continue };
        let service = of(&router, Peer(peer));
        let connection =
            server.serve_connection(TokioIo::new(Patient::new(stream, ANSWER_TIMEOUT)), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
            drop((permit, place));
        });
    }
    app.close();
    if timeout(CLOSING_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off: they took longer than the time to close");
    }
}

/// How many connections each site has.
type Places = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection's place among those of its site, given back when it ends.
#[derive(Debug)]
struct Place {
    places: Places,
    site: IpAddr,
}

/// Those who are counted as one: an IPv4 address, or the /64 of IPv6 in which one customer has all addresses.
fn site(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

impl Place {
    /// `None` when the site has as many as it may.
    fn take(places: &Places, peer: IpAddr, settings: &Settings) -> Option<Self> {
        let mut taken = places.lock().unwrap_or_else(PoisonError::into_inner);
        let site = site(peer);
        let count = taken.entry(site).or_default();
        let free = *count < settings.connections_per_address_max
            || settings.trusted_proxies.covers(peer.to_canonical());
        *count += usize::from(free);
        free.then(|| Self { places: Arc::clone(places), site })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(self.site) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

async fn next_connection(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are small and whole; waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                return (stream, peer.ip());
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Notices what other processes committed: when Redis tells of it, and now and then in any case.
async fn look(app: Arc<App>) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let news = app.redis.as_ref().map(Redis::listen);
    let mut heard = news.as_ref().map(FeedNews::positions);
    loop {
        match &mut heard {
            Some(heard) => {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = heard.changed() => {}
                }
            }
            None => {
                ticks.tick().await;
            }
        }
        if let Err(error) = app.feed.look().await {
            tracing::warn!(%error, "feed not read");
        }
        if let Err(error) = app.look_at_credentials().await {
            tracing::warn!(%error, "withdrawn credentials not read");
        }
    }
}

/// Publishes what a crash left unpublished.
async fn publish_rest(app: Arc<App>) {
    let mut ticks = interval(REST_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.feed.publish_outbox().await {
            tracing::warn!(%error, "revocations not published");
        }
    }
}

/// Has signing keys follow each other, also by what other replicas did.
async fn rotate_keys(app: Arc<App>) {
    let schedule = app.settings.keys.schedule(app.settings.token);
    let seconds = (schedule.prepublish_seconds / 4).clamp(1, ROTATION_SECONDS_MAX);
    let mut ticks = interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.rotate_keys().await {
            tracing::error!(%error, "signing keys not rotated");
        }
    }
}

/// Tells the other replicas how far the feed has come.
async fn announce(app: Arc<App>) {
    let Some(redis) = app.redis.clone() else { return };
    let mut positions = app.feed.positions();
    while positions.changed().await.is_ok() {
        let position = *positions.borrow_and_update();
        if let Err(error) = redis.announce(position).await {
            tracing::debug!(%error, "feed position not announced");
        }
    }
}

/// Has every replica know what running edges say of themselves.
async fn keep_heartbeats(app: Arc<App>) {
    let mut ticks = interval(HEARTBEAT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.keep_heartbeats().await {
            tracing::warn!(%error, "heartbeats not kept");
        }
    }
}

async fn keep_house(app: Arc<App>) {
    let mut ticks = interval(HOUSE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.keep_house().await {
            tracing::warn!(%error, "housekeeping failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_an_ipv4_address_or_a_64_of_ipv6() {
        let same = |one: &str, other: &str| site(one.parse().unwrap()) == site(other.parse().unwrap());
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
