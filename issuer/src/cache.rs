//! Decides how old an answer may be that was not read from the database just now, and what must not be answered so at all.
//!
//! There are three levels: this process, Redis, the database. Each may be away: without Redis this process and the database
//! answer, and without the database what this process had answers for a while longer. A change is known at once in the
//! process that made it, in others as soon as Redis tells them, and at the latest after the times of [`CacheSettings`]:
//! `memory_seconds` without Redis, the longer of that and `shared_seconds` when Redis lost the news. `stale_seconds` come on
//! top only while the database does not answer, and then nothing can be issued, because that is written there.
//!
//! | kept | what an old one can do until then | why that may be |
//! | --- | --- | --- |
//! | client | one that was disabled, or whose secret was withdrawn, still authenticates | what it had is cut off in the database, which every check of a token reads; before something new is issued, [`App::confirmed_client`] asks the database |
//! | role | a permission that was taken away can still be asked for | what was given before is cut off; a token that is given it here afterwards has it until it ends, a quarter of an hour by default |
//! | tenant | one that was disabled still looks enabled to its clients | as for clients; what is issued is refused with the cut-offs, [`Store::cut_off`] |
//!
//! Credentials of operators and edges, passwords, sessions, refresh tokens, cut-offs and keys are never kept.
//!
//! [`App::confirmed_client`]: crate::App::confirmed_client
//! [`Store::cut_off`]: crate::store::Store::cut_off

mod fact;
mod fence;
mod hot;
mod news;
mod read;
mod seal;
mod shared;
mod shelf;
mod untold;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::clock::Host;
use crate::config::CacheSettings;
use crate::metrics::Metrics;
use crate::store::redis::{Redis, SharedFacts};
use crate::store::{FactKind, Role, Store, StoreError, Tenant};
use fact::{Fact, Known};
use news::Newsroom;
use seal::CacheSeal;
use shared::Shared;
use shelf::Shelf;

/// How much is read at once of what was hot before this process began.
const WARMED_AT_ONCE: usize = 4;
/// What is remembered of each kind as hot.
const HOT_PLACES: u32 = hot::PLACES as u32;

/// What is kept of the database's contents. Dropping it ends the subscription to the news of other replicas.
#[derive(Debug)]
pub struct Cache {
    shelves: Arc<Shelves>,
    newsroom: Option<Newsroom>,
}

/// The first two levels, one shelf for each kind.
#[derive(Debug)]
struct Shelves {
    clients: Shelf<Client>,
    roles: Shelf<Role>,
    tenants: Shelf<Tenant>,
}

impl Shelves {
    fn changed(&self, kind: FactKind, id: &str) {
        match kind {
            FactKind::Client => self.clients.changed(id),
            FactKind::Role => self.roles.changed(id),
            FactKind::Tenant => self.tenants.changed(id),
        }
    }

    fn distrust(&self) {
        self.clients.distrust();
        self.roles.distrust();
        self.tenants.distrust();
    }
}

impl Cache {
    /// A cache of what `store` has, which is told of every change there. Redis comes with the secret that seals what is left
    /// in it. Has to be called within a runtime.
    #[must_use]
    pub fn new(
        settings: CacheSettings,
        store: &Store,
        redis: Option<(Redis, Zeroizing<[u8; 32]>)>,
        host: &Arc<dyn Host>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let shared = redis.filter(|_| settings.shared_seconds > 0).map(|(redis, secret)| {
            Arc::new(Shared {
                facts: SharedFacts::new(redis),
                seal: CacheSeal::new(secret),
                seconds: settings.shared_seconds,
                host: Arc::clone(host),
                untold: Mutex::default(),
            })
        });
        let shelves = Arc::new(Shelves {
            clients: Shelf::new(settings, shared.clone(), Arc::clone(host), Arc::clone(metrics)),
            roles: Shelf::new(settings, shared.clone(), Arc::clone(host), Arc::clone(metrics)),
            tenants: Shelf::new(settings, shared.clone(), Arc::clone(host), Arc::clone(metrics)),
        });
        let newsroom = shared.map(|shared| Newsroom::open(&shelves, shared, Arc::clone(metrics)));
        store.observe(Arc::new(news::ChangeDesk::new(&shelves, newsroom.as_ref())));
        Self { shelves, newsroom }
    }

    /// The client of this id.
    pub(crate) async fn client(&self, store: &Store, id: &str) -> Result<Option<Arc<Client>>, StoreError> {
        Ok(read(&self.shelves.clients, store, id).await?.map(|known| known.value))
    }

    /// The client of this id, which the database still has so.
    pub(crate) async fn confirmed_client(
        &self,
        store: &Store,
        id: &str,
    ) -> Result<Option<Arc<Client>>, StoreError> {
        let clients = &self.shelves.clients;
        // The database is asked first: what is known then is as new as its answer, or shown to be old by it.
        let revision = store.client_revision(id).await?;
        let known = read(clients, store, id).await?;
        if known.as_ref().map(|known| known.revision) == revision {
            return Ok(known.map(|known| known.value));
        }
        clients.changed(id);
        Ok(store.client(id).await?.map(|(client, _)| Arc::new(client)))
    }

    /// The role of this name.
    pub(crate) async fn role(&self, store: &Store, name: &str) -> Result<Option<Arc<Role>>, StoreError> {
        Ok(read(&self.shelves.roles, store, name).await?.map(|known| known.value))
    }

    /// The tenant of this id.
    pub(crate) async fn tenant(&self, store: &Store, id: &str) -> Result<Option<Arc<Tenant>>, StoreError> {
        Ok(read(&self.shelves.tenants, store, id).await?.map(|known| known.value))
    }

    /// Reads what was hot before this process began, and tells how much of it there is.
    ///
    /// # Errors
    /// [`StoreError`] when it is not known what was hot. What cannot be read is read when it is asked for.
    pub async fn warm(&self, store: &Store) -> Result<usize, StoreError> {
        let hot = store.hot(HOT_PLACES.saturating_mul(3)).await?;
        let read = stream::iter(hot).map(async |(kind, id, _)| match kind {
            FactKind::Client => matches!(self.client(store, &id).await, Ok(Some(_))),
            FactKind::Role => matches!(self.role(store, &id).await, Ok(Some(_))),
            FactKind::Tenant => matches!(self.tenant(store, &id).await, Ok(Some(_))),
        });
        let found = read.buffer_unordered(WARMED_AT_ONCE).filter(|found| std::future::ready(*found));
        Ok(found.count().await)
    }

    /// Writes down what was hot since this was done last.
    ///
    /// # Errors
    /// [`StoreError`]; what was counted is lost then.
    pub async fn keep_hot(&self, store: &Store) -> Result<(), StoreError> {
        let Shelves { clients, roles, tenants } = &*self.shelves;
        let mut uses = Vec::new();
        for (kind, hot) in [
            (FactKind::Client, clients.take_hot()),
            (FactKind::Role, roles.take_hot()),
            (FactKind::Tenant, tenants.take_hot()),
        ] {
            uses.extend(hot.into_iter().map(|(id, count)| (kind, id, count)));
        }
        if uses.is_empty() { Ok(()) } else { store.add_uses(&uses, HOT_PLACES).await }
    }

    /// Waits until the other replicas were told of the changes so far, but not for long: before a process ends.
    pub async fn settle(&self, limit: Duration) {
        if let Some(newsroom) = &self.newsroom {
            newsroom.settle(limit).await;
        }
    }
}

async fn read<T: Fact>(shelf: &Shelf<T>, store: &Store, id: &str) -> Result<Option<Known<T>>, StoreError> {
    shelf.read(id, || T::read(store, id)).await
}

#[cfg(test)]
mod tests;
