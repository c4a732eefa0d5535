//! Decides what a status list says (Token Status List draft): which of our tokens were revoked one by one, signed like a token,
//! made once for all who ask.
//!
//! *What comes in:* the number of a list, chosen by anyone. *What goes out:* bits that are those of the database as of now.
//! *What an attacker gains if this is wrong:* a revoked token that others than our edges believe.
//!
//! A cut-off of a session, user or client is in no list: of the tokens that it covers no index is kept. Edges have those by the feed.

mod bits;
mod turns;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tollgate_shared::id::KeyId;
use tollgate_shared::revocation::{Position, list_uri};
use tollgate_shared::time::{Monotonic, UnixSeconds};
use tollgate_shared::token::IssueError;

pub use bits::StatusBits;

use crate::app::App;
use crate::published::{Published, entity_tag};
use crate::store::{STATUS_LISTS_MAX, StoreError};
use turns::Turns;

/// For how long a list may be kept by whoever has it, in seconds: `ttl`, and `max-age`.
pub const TTL_SECONDS: u64 = 60;
/// How long a list is good, in seconds: one that was made a `ttl` ago may be kept for as long again, by a clock that is behind.
const LIFETIME_SECONDS: u64 = 5 * TTL_SECONDS;
/// How long it is believed which lists there are not, in milliseconds.
const COUNTED_MILLIS: u64 = 1_000;
/// Not the number of a list: the turn of who wants to know which lists there are.
const ALL: u32 = u32::MAX;
/// The most lists that are kept in memory, each of a quarter of a mebibyte at most.
const LISTS_MAX: usize = 64;
/// `typ` of a list.
const TYPE: &str = "statuslist+jwt";
/// One bit for each token.
const BITS: u8 = 1;

/// A list, ready to be sent.
#[derive(Debug, Clone)]
pub struct ListDocument {
    /// The signed list.
    pub token: Bytes,
    /// Its entity tag, quoted.
    pub etag: String,
}

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum StatusListError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was not signed.
    #[error("status list: {0}")]
    Issue(#[from] IssueError),
    /// It was not compressed.
    #[error("status list: {0}")]
    Compress(#[from] io::Error),
    /// What compresses it ended early.
    #[error("status list could not be compressed")]
    Task,
    /// Too many wait for one.
    #[error("too many wait for status lists")]
    Busy,
}

/// The lists that were made.
#[derive(Debug, Default)]
pub struct StatusLists {
    kept: Mutex<Kept>,
    turns: Turns,
}

#[derive(Debug, Default)]
struct Kept {
    lists: BTreeMap<u32, KeptList>,
    /// Which lists there were, and when.
    all: Option<(UnixSeconds, Arc<Published>)>,
    /// How many lists there are, and when that was read: their numbers are those below.
    count: Option<(Monotonic, u32)>,
    uses: u64,
}

/// Up to where a list is known to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    position: Position,
    key: KeyId,
}

#[derive(Debug, Clone)]
struct KeptList {
    seen: Seen,
    made_at: UnixSeconds,
    digest: [u8; 32],
    document: ListDocument,
    used: u64,
}

impl KeptList {
    fn is_young(&self, now: UnixSeconds) -> bool {
        now < self.made_at.plus(TTL_SECONDS)
    }

    fn is_as_of(&self, seen: &Seen) -> bool {
        self.seen.position >= seen.position && self.seen.key == seen.key
    }
}

impl Kept {
    fn list(&mut self, list: u32, seen: &Seen, now: UnixSeconds) -> Option<ListDocument> {
        self.uses += 1;
        let found = self.lists.get_mut(&list).filter(|kept| kept.is_as_of(seen) && kept.is_young(now))?;
        found.used = self.uses;
        Some(found.document.clone())
    }

    /// Whether there is a list of this number; `None` when that has to be read.
    fn has(&self, list: u32, now: Monotonic) -> Option<bool> {
        // Lists come and never go, so that there is one is never forgotten.
        let (read_at, count) = self.count?;
        let is_new = now.since(read_at) < COUNTED_MILLIS;
        (list < count || is_new).then_some(list < count)
    }

    /// Keeps a list; the one used least lately makes room for one more than there may be.
    fn keep(&mut self, list: u32, kept: KeptList) {
        self.uses += 1;
        self.lists.insert(list, KeptList { used: self.uses, ..kept });
        if self.lists.len() > LISTS_MAX
            && let Some((oldest, _)) = self.lists.iter().min_by_key(|(_, kept)| kept.used)
        {
            let oldest = *oldest;
            self.lists.remove(&oldest);
        }
    }
}

#[derive(Serialize)]
struct ListClaims<'l> {
    sub: &'l str,
    iat: u64,
    exp: u64,
    ttl: u64,
    status_list: StatusListMember<'l>,
}

#[derive(Serialize)]
struct StatusListMember<'l> {
    bits: u8,
    lst: &'l str,
    aggregation_uri: &'l str,
}

impl App {
    /// The list of this number, as of now; `None` when no token of it was ever issued, or only within the last second.
    ///
    /// # Errors
    /// See [`StatusListError`].
    pub async fn status_list(&self, list: u32) -> Result<Option<ListDocument>, StatusListError> {
        if !self.has_status_list(list).await? {
            return Ok(None);
        }
        let known = || {
            let (seen, now) = (self.list_seen(), self.feed.now().seconds());
            self.status_lists.kept().list(list, &seen, now)
        };
        if let Some(document) = known() {
            return Ok(Some(document));
        }
        let _turn = self.status_lists.turns.of(list).await.ok_or(StatusListError::Busy)?;
        // Somebody may have made it meanwhile.
        if let Some(document) = known() {
            return Ok(Some(document));
        }
        // Before it is read: what is revoked from here on has it made anew.
        let (seen, now) = (self.list_seen(), self.feed.now().seconds());
        let kept = self.status_lists.kept().lists.get(&list).cloned();
        if let Some(kept) = kept.clone().filter(|kept| kept.seen.key == seen.key && kept.is_young(now))
            && let Some(position) = self.feed.untouched_until(list, kept.seen.position).await
        {
            let document = kept.document.clone();
            self.status_lists.kept().keep(list, KeptList { seen: Seen { position, ..seen }, ..kept });
            return Ok(Some(document));
        }
        let _maker = self.status_lists.turns.maker().await;
        let Some(revoked) = self.store.revoked_in_list(list).await? else { return Ok(None) };
        let made = self.made_list(list, &revoked, (seen, now), kept).await?;
        let document = made.document.clone();
        self.status_lists.kept().keep(list, made);
        Ok(Some(document))
    }

    /// Whether there is a list of this number. Of one that there is not the database is asked once a second at most, whoever asks.
    async fn has_status_list(&self, list: u32) -> Result<bool, StatusListError> {
        if list >= STATUS_LISTS_MAX {
            return Ok(false);
        }
        let known = || self.status_lists.kept().has(list, self.host.now().monotonic);
        if let Some(known) = known() {
            return Ok(known);
        }
        let _turn = self.status_lists.turns.of(ALL).await.ok_or(StatusListError::Busy)?;
        if let Some(known) = known() {
            return Ok(known);
        }
        let read_at = self.host.now().monotonic;
        let count = self.store.status_list_count().await?;
        self.status_lists.kept().count = Some((read_at, count));
        Ok(list < count)
    }

    /// What decides whether a list has to be made anew.
    fn list_seen(&self) -> Seen {
        Seen { position: self.feed.position(), key: self.keys.signing.view().active().clone() }
    }

    /// The list, signed; the one that is kept when it says the same and is not too old.
    async fn made_list(
        &self,
        list: u32,
        revoked: &[u32],
        (seen, now): (Seen, UnixSeconds),
        kept: Option<KeptList>,
    ) -> Result<KeptList, StatusListError> {
        let bits = StatusBits::revoking(revoked);
        let digest = Sha256::digest(bits.bytes()).into();
        let same = |kept: &KeptList| kept.digest == digest && kept.seen.key == seen.key && kept.is_young(now);
        if let Some(kept) = kept.filter(same) {
            return Ok(KeptList { seen, ..kept });
        }
        // A millisecond or ten, in which nobody else is to wait.
        let lst = tokio::task::spawn_blocking(move || bits.lst());
        let lst = lst.await.map_err(|_| StatusListError::Task)??;
        let claims = ListClaims {
            sub: &list_uri(self.settings.issuer.as_str(), list),
            iat: now.0,
            exp: now.plus(LIFETIME_SECONDS).0,
            ttl: TTL_SECONDS,
            status_list: StatusListMember {
                bits: BITS,
                lst: &lst,
                aggregation_uri: &self.metadata.endpoints.status_lists,
            },
        };
        let token = self.keys.signing.view().sign(TYPE, &claims)?;
        let document = ListDocument { etag: entity_tag(token.as_bytes()), token: token.into() };
        Ok(KeptList { seen, made_at: now, digest, document, used: 0 })
    }

    /// Where all lists are of which tokens may be in force, as of less than a `ttl` ago.
    ///
    /// # Errors
    /// See [`StatusListError`].
    pub async fn all_status_lists(&self) -> Result<Arc<Published>, StatusListError> {
        let known = || {
            let now = self.feed.now().seconds();
            let (made_at, document) = self.status_lists.kept().all.clone()?;
            (now < made_at.plus(TTL_SECONDS)).then_some(document)
        };
        if let Some(document) = known() {
            return Ok(document);
        }
        let _turn = self.status_lists.turns.of(ALL).await.ok_or(StatusListError::Busy)?;
        if let Some(document) = known() {
            return Ok(document);
        }
        let now = self.feed.now().seconds();
        let lists = self.store.status_lists(now).await?;
        let issuer = self.settings.issuer.as_str();
        let uris: Vec<String> = lists.into_iter().map(|list| list_uri(issuer, list)).collect();
        let text = serde_json::json!({ "status_lists": uris }).to_string();
        let document = Arc::new(Published::new("application/json", text));
        self.status_lists.kept().all = Some((now, Arc::clone(&document)));
        Ok(document)
    }
}

impl StatusLists {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing that holds the lock can panic, and each entry is whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) use bits::tests::read as read_statuses;
#[cfg(test)]
pub(crate) use turns::{Turn, WAITERS_MAX};

#[cfg(test)]
impl StatusLists {
    /// Has everybody wait who wants this list made.
    pub(crate) async fn turn(&self, list: u32) -> Option<Turn<'_>> {
        self.turns.of(list).await
    }

    /// How many more may wait.
    pub(crate) fn free_places(&self) -> usize {
        self.turns.free_places()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_that_was_used_least_lately_makes_room() {
        let key = KeyId::new("k").unwrap();
        let seen = Seen { position: Position(1), key };
        let document = ListDocument { token: Bytes::new(), etag: String::new() };
        let list = || KeptList {
            seen: seen.clone(),
            made_at: UnixSeconds(100),
            digest: [0; 32],
            document: document.clone(),
            used: 0,
        };
        let mut kept = Kept::default();
        for number in 0..64 {
            kept.keep(number, list());
        }
        assert!(kept.list(0, &seen, UnixSeconds(159)).is_some());
        assert!(kept.list(1, &seen, UnixSeconds(160)).is_none(), "it is too old");
        let later = Seen { position: Position(2), ..seen.clone() };
        assert!(kept.list(2, &later, UnixSeconds(100)).is_none(), "something was revoked");
        let other = Seen { key: KeyId::new("other").unwrap(), ..seen.clone() };
        assert!(kept.list(3, &other, UnixSeconds(100)).is_none(), "another key signs");
        kept.keep(64, list());
        assert_eq!(kept.lists.len(), LISTS_MAX);
        assert!(kept.lists.contains_key(&0) && !kept.lists.contains_key(&1));
    }
}
