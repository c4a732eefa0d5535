//! Serves connections: bounded in number and patience, and ended in order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::OpenError;
use crate::app::{App, router};
use crate::clock::SystemHost;
use crate::config::Settings;
use crate::keys::{Existing, KeyError, write_private};
use crate::store::StoreError;

/// The most connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;
/// How long the head of a request may take, and how long a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests have to finish once the service closes.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first requests wait for what was hot before.
const WARM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last changes may take to be told to other replicas.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon what another process committed is noticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
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
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let app = App::open(settings, Arc::new(SystemHost::new())).await?;
    app.publish().await?;
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
    let background = [tokio::spawn(look(Arc::clone(&app))), tokio::spawn(keep_house(Arc::clone(&app)))];
    accept(&app, &listener, shutdown).await;
    for task in &background {
        task.abort();
    }
    if let Err(error) = app.keep_house().await {
        tracing::warn!(%error, "last housekeeping failed");
    }
    app.cache.settle(SETTLE_TIMEOUT).await;
    app.store.close().await;
    tracing::info!("closed");
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

async fn accept(app: &Arc<App>, listener: &TcpListener, shutdown: impl Future<Output = ()>) {
    // HTTP/1 only: the builder would otherwise wait for a connection's first bytes without a limit of time.
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let router = router(Arc::clone(app));
    let graceful = GracefulShutdown::new();
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = async {
            let permit = Arc::clone(&free).acquire_owned().await.ok()?;
            Some((next_connection(listener).await, permit))
        };
        let (stream, permit) = tokio::select! {
            accepted = accepted => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
            () = &mut shutdown => break,
        };
        let service = TowerToHyperService::new(Router::clone(&router));
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
            drop(permit);
        });
    }
    app.close();
    if timeout(CLOSING_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off: they took longer than the time to close");
    }
}

async fn next_connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small and whole; waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn look(app: Arc<App>) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = app.feed.look().await {
            tracing::warn!(%error, "feed position not read");
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
