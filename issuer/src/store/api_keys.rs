//! Keeps API keys: whose they are, what they may, until when; and never their secrets.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;

use super::cutoffs::Reach;
use super::database::{Lock, Tx};
use super::outbox::{Wish, Wished, wish};
use super::{Store, StoreError, exists, list_from_json, list_to_json, signed, unsigned};
use crate::api_key::{API_KEYS_MAX, ApiKeyOwner};
use crate::clock::Host;
use crate::credential::SecretDigest;

/// For how long a key that is over can still be looked at, in seconds.
const KEPT_SECONDS: u64 = 90 * 86_400;

/// An API key as it is kept.
#[derive(Debug, Clone)]
pub struct ApiKeyRecord {
    /// By what it is looked up.
    pub id: String,
    /// What the secret of a presented key must hash to.
    pub digest: SecretDigest,
    /// Whose it is.
    pub owner: ApiKeyOwner,
    /// What people call it.
    pub name: String,
    /// What it is good for, as long as its owner may that.
    pub scopes: Vec<String>,
    /// Since when.
    pub created_at: UnixSeconds,
    /// From when on it is no key any more.
    pub expires_at: Option<UnixSeconds>,
    /// When it was revoked.
    pub revoked_at: Option<UnixSeconds>,
}

impl ApiKeyRecord {
    /// Whether it is neither revoked nor expired at this instant.
    #[must_use]
    pub fn is_in_force(&self, now: UnixSeconds) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let date = |name: &str| {
            let second: Option<i64> = row.try_get(name)?;
            Ok::<_, sqlx::Error>(second.map(|second| UnixSeconds(unsigned(second))))
        };
        let (kind, scopes): (String, String) = (row.try_get("owner_kind")?, row.try_get("scopes")?);
        let owner = ApiKeyOwner::of(&kind, row.try_get("owner")?);
        let digest = SecretDigest::from_bytes(row.try_get("digest")?);
        Ok(Self {
            id: row.try_get("id")?,
            digest: digest.ok_or(StoreError::Corrupt("api_keys.digest"))?,
            owner: owner.ok_or(StoreError::Corrupt("api_keys.owner_kind"))?,
            name: row.try_get("name")?,
            scopes: list_from_json(&scopes, "api_keys.scopes")?,
            created_at: UnixSeconds(unsigned(row.try_get("created_at")?)),
            expires_at: date("expires_at")?,
            revoked_at: date("revoked_at")?,
        })
    }
}

/// What became of a key that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddedApiKey {
    /// It is there.
    Added,
    /// Its owner has [`API_KEYS_MAX`] already.
    TooMany,
    /// There is no such client any more.
    NoOwner,
}

const SELECT_ONE: &str = "SELECT id, digest, owner_kind, owner, name, scopes, created_at, expires_at, revoked_at \
                          FROM api_keys WHERE id = $1";

impl Store {
    /// Adds a key, if its owner may have one more.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one of this id.
    pub async fn add_api_key(&self, key: &ApiKeyRecord, now: UnixSeconds) -> Result<AddedApiKey, StoreError> {
        self.home
            .run(move || async move {
                // The lock of a client's changes: nobody deletes the client meanwhile, and leaves it a key.
                let mut write = self.home.write(&[Lock::Name(key.owner.id())]).await?;
                if let ApiKeyOwner::Client(client) = &key.owner {
                    let clients: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM clients WHERE id = $1")
                        .bind(client)
                        .fetch_one(&mut *write)
                        .await?;
                    if clients == 0 {
                        return Ok(AddedApiKey::NoOwner);
                    }
                }
                let keys: i64 = sqlx::query_scalar(
                    "SELECT COUNT(*) FROM api_keys WHERE owner_kind = $1 AND owner = $2 \
                     AND (over_at IS NULL OR over_at > $3)",
                )
                .bind(key.owner.kind())
                .bind(key.owner.id())
                .bind(signed(now.0))
                .fetch_one(&mut *write)
                .await?;
                if keys >= i64::from(API_KEYS_MAX) {
                    return Ok(AddedApiKey::TooMany);
                }
                insert(&mut write, key).await?;
                write.commit().await?;
                Ok(AddedApiKey::Added)
            })
            .await
    }

    /// The key with this public id, also when it is over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_key(&self, id: &str) -> Result<Option<ApiKeyRecord>, StoreError> {
        self.home
            .run(move || async move {
                let row = sqlx::query(SELECT_ONE).bind(id).fetch_optional(self.home.readers()).await?;
                row.as_ref().map(ApiKeyRecord::from_row).transpose()
            })
            .await
    }

    /// The keys whose ids come after `after`, at most `limit`, by id: those of this owner, or everybody's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn api_keys(
        &self,
        owner: Option<&ApiKeyOwner>,
        after: &str,
        limit: u32,
    ) -> Result<Vec<ApiKeyRecord>, StoreError> {
        self.home
            .run(move || async move {
                let query = match owner {
                    Some(owner) => sqlx::query(
                        "SELECT id, digest, owner_kind, owner, name, scopes, created_at, expires_at, revoked_at \
                         FROM api_keys WHERE id > $1 AND owner_kind = $3 AND owner = $4 ORDER BY id LIMIT $2",
                    )
                    .bind(after)
                    .bind(i64::from(limit))
                    .bind(owner.kind())
                    .bind(owner.id()),
                    None => sqlx::query(
                        "SELECT id, digest, owner_kind, owner, name, scopes, created_at, expires_at, revoked_at \
                         FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2",
                    )
                    .bind(after)
                    .bind(i64::from(limit)),
                };
                let rows = query.fetch_all(self.home.readers()).await?;
                rows.iter().map(ApiKeyRecord::from_row).collect()
            })
            .await
    }

    /// Revokes a key, which is published when [`Store::publish`] returns. One that is over stays as it is.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn revoke_api_key(
        &self,
        id: &str,
        actor: &str,
        host: &dyn Host,
    ) -> Result<(ApiKeyRecord, Wished), StoreError> {
        self.home
            .run(move || async move {
                let now = host.seconds();
                let mut wishes = Vec::new();
                let mut write = self.home.write(&[Lock::Name(id)]).await?;
                let revoked = sqlx::query(
                    "UPDATE api_keys SET revoked_at = $2, over_at = $2 \
                     WHERE id = $1 AND (over_at IS NULL OR over_at > $2)",
                )
                .bind(id)
                .bind(signed(now.0))
                .execute(&mut *write)
                .await?;
                if revoked.rows_affected() > 0 {
                    let (dimension, reach) = (Dimension::Token, Reach::Tokens);
                    let (reason, token_until) = ("api key revoked", None);
                    let order = Wish { dimension, value: id, reach, reason, actor, token_until };
                    wishes.push(wish(&mut write, order, now, host).await?);
                }
                let row = sqlx::query(SELECT_ONE).bind(id).fetch_optional(&mut *write).await?;
                let key = row.as_ref().map(ApiKeyRecord::from_row).transpose()?.ok_or(StoreError::Missing)?;
                write.commit().await?;
                Ok((key, Wished::at(&self.home, wishes)))
            })
            .await
    }

    /// Forgets the keys that have been over for long.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_api_keys(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        let before = signed(now.minus(KEPT_SECONDS).0);
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                let removed = sqlx::query("DELETE FROM api_keys WHERE over_at < $1")
                    .bind(before)
                    .execute(&mut *write)
                    .await?;
                write.commit().await?;
                Ok(removed.rows_affected())
            })
            .await
    }
}

/// Revokes all keys of an owner who is being deleted: another of the same id is not to have them. That the owner is cut off
/// tells edges enough.
pub(super) async fn revoke_all_of(
    write: &mut Tx,
    owner: &ApiKeyOwner,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE api_keys SET revoked_at = $3, over_at = $3 \
         WHERE owner_kind = $1 AND owner = $2 AND (over_at IS NULL OR over_at > $3)",
    )
    .bind(owner.kind())
    .bind(owner.id())
    .bind(signed(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

async fn insert(write: &mut Tx, key: &ApiKeyRecord) -> Result<(), StoreError> {
    let ApiKeyRecord { id, digest, owner, name, scopes, created_at, expires_at, revoked_at } = key;
    let second = |date: &Option<UnixSeconds>| date.map(|date| signed(date.0));
    let ends = [expires_at, revoked_at].into_iter().flatten().min();
    sqlx::query(
        "INSERT INTO api_keys (id, digest, owner_kind, owner, name, scopes, created_at, expires_at, revoked_at, \
         over_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(id)
    .bind(digest.as_bytes().as_slice())
    .bind(owner.kind())
    .bind(owner.id())
    .bind(name)
    .bind(list_to_json(scopes))
    .bind(signed(created_at.0))
    .bind(second(expires_at))
    .bind(second(revoked_at))
    .bind(ends.map(|end| signed(end.0)))
    .execute(&mut **write)
    .await
    .map_err(exists)?;
    Ok(())
}
