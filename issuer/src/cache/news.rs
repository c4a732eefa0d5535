//! Tells other replicas what this one has changed, and hears what they have.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tollgate_shared::time::Monotonic;

use super::Shelves;
use super::shared::{Shared, changed};
use crate::metrics::Metrics;
use crate::store::redis::News;
use crate::store::{FactKind, Observer};

/// The most changes that wait to be told. Those beyond are not, and end by their age.
const WAITING_MAX: usize = 1024;
const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(1);

/// What is to be told.
#[derive(Debug)]
enum Item {
    /// This changed, in this millisecond of the monotonic clock.
    Changed(FactKind, String, Monotonic),
    /// Everything before this was told.
    Settled(oneshot::Sender<()>),
}

/// The two tasks that talk with other replicas. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Newsroom {
    items: mpsc::Sender<Item>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    telling: JoinHandle<()>,
    hearing: JoinHandle<Infallible>,
}

impl Newsroom {
    pub(super) fn open(shelves: &Arc<Shelves>, shared: Arc<Shared>, metrics: Arc<Metrics>) -> Self {
        let (items, waiting) = mpsc::channel(WAITING_MAX);
        let telling = tokio::spawn(tell(Arc::clone(&shared), waiting, Arc::clone(&metrics)));
        let hearing = tokio::spawn(hear(Arc::clone(&shared), Arc::clone(shelves)));
        Self { items, shared, metrics, telling, hearing }
    }

    pub(super) async fn settle(&self, limit: Duration) {
        let (settled, seen) = oneshot::channel();
        let all = async {
            if self.items.send(Item::Settled(settled)).await.is_ok() {
                let _ = seen.await;
            }
        };
        if timeout(limit, all).await.is_err() {
            tracing::info!("other replicas were not told of every change; what they keep ends by its age");
        }
    }
}

impl Drop for Newsroom {
    fn drop(&mut self) {
        self.telling.abort();
        self.hearing.abort();
    }
}

/// Hears of the changes that this process makes.
#[derive(Debug)]
pub(super) struct ChangeDesk {
    shelves: Arc<Shelves>,
    others: Option<(mpsc::Sender<Item>, Arc<Shared>, Arc<Metrics>)>,
}

impl ChangeDesk {
    pub(super) fn new(shelves: &Arc<Shelves>, newsroom: Option<&Newsroom>) -> Self {
        let others = newsroom.map(|newsroom| {
            let Newsroom { items, shared, metrics, .. } = newsroom;
            (items.clone(), Arc::clone(shared), Arc::clone(metrics))
        });
        Self { shelves: Arc::clone(shelves), others }
    }
}

impl Observer for ChangeDesk {
    fn changed(&self, kind: FactKind, id: &str) {
        // First, so that no reader who begins after this process forgot it finds it in Redis.
        if let Some((_, shared, _)) = &self.others {
            shared.untold().changed(kind, id);
        }
        self.shelves.changed(kind, id);
        if let Some((items, shared, metrics)) = &self.others {
            let now = shared.host.now().monotonic;
            if items.try_send(Item::Changed(kind, id.to_owned(), now)).is_err() {
                shared.untold().given_up(kind, id, ended(shared, now));
                metrics.cache_change_untold();
            }
        }
    }
}

/// Tells each change until it is told, or until nobody can have what was there before.
async fn tell(shared: Arc<Shared>, mut waiting: mpsc::Receiver<Item>, metrics: Arc<Metrics>) {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(DELAY_MIN)
        .with_max_delay(DELAY_MAX)
        .with_jitter()
        .without_max_times();
    while let Some(item) = waiting.recv().await {
        let (kind, id, at) = match item {
            Item::Changed(kind, id, at) => (kind, id, at),
            Item::Settled(settled) => {
                let _ = settled.send(());
                continue;
            }
        };
        let end = ended(&shared, at);
        let mut delays = backoff.build();
        while let Err(error) = shared.forget(kind, &id).await {
            tracing::debug!(%error, kind = kind.name(), "other replicas were not told of a change");
            if shared.host.now().monotonic >= end {
                metrics.cache_change_untold();
                break;
            }
            sleep(delays.next().unwrap_or(DELAY_MAX)).await;
        }
        shared.untold().told(kind, &id);
    }
}

/// When nothing is left in Redis of what was there before a change.
fn ended(shared: &Shared, changed_at: Monotonic) -> Monotonic {
    changed_at.plus(shared.seconds.saturating_mul(1000))
}

async fn hear(shared: Arc<Shared>, shelves: Arc<Shelves>) -> Infallible {
    let heard = |news: News<'_>| match news {
        // Changes that were told before this were not heard.
        News::Connected => shelves.distrust(),
        News::Said(said) => {
            if let Some((kind, id)) = changed(said) {
                shelves.changed(kind, id);
            }
        }
    };
    shared.facts.redis().hear_changes(heard).await
}
