//! Keeps signing keys and other sealed secrets, and tells the feed of a change of keys in the transaction that makes it.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::{Dimension, Position};
use tollgate_shared::time::UnixSeconds;

use super::cutoffs::Reach;
use super::database::{Lock, Tx};
use super::feed_log::{Entry, log_if_changed_in, revoke_in};
use super::latest_token::LatestToken;
use super::{LogEntry, RevocationOrder, Store, StoreError, signed, unsigned};
use crate::signing_keys::KeyRow;

/// How long a key that ended is kept for the record, in seconds.
const ENDED_SECONDS: u64 = 90 * 86_400;

/// What becomes of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// The rows that are new or other than they were.
    pub rows: Vec<KeyRow>,
    /// The JWK Set that is published from now on.
    pub jwks: String,
    /// The key that is not to be trusted any more, why, and who says so.
    pub withdrawn: Option<(String, String, String)>,
}

impl Store {
    /// The keys that have not ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn signing_keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        self.home
            .run(move || async move {
                let mut read = self.home.read().await?;
                let rows = rows(&mut read).await?;
                read.commit().await?;
                Ok(rows)
            })
            .await
    }

    /// Changes the keys as `change` says, which is given those there are; nobody else does meanwhile. The feed is told in
    /// the same transaction.
    ///
    /// # Errors
    /// [`StoreError`], or what `change` failed with; nothing has changed then.
    pub async fn change_signing_keys(
        &self,
        now: UnixSeconds,
        change: impl Fn(Vec<KeyRow>) -> Result<KeyChange, StoreError> + Send + Sync,
    ) -> Result<Option<Position>, StoreError> {
        let change = &change;
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Keys, Lock::Feed]).await?;
                let KeyChange { rows, jwks, withdrawn } = change(rows(&mut write).await?)?;
                for row in &rows {
                    upsert(&mut write, row).await?;
                    self.home.host().reached("keys.row_written");
                }
                let mut position = log_if_changed_in(&mut write, &LogEntry::Keys(jwks), now).await?;
                self.home.host().reached("keys.logged");
                if let Some((key, reason, actor)) = withdrawn {
                    let order =
                        RevocationOrder::Value { dimension: Dimension::Key, issuer: None, value: key };
                    let reason = Some(reason.as_str());
                    let entry = Entry { order: &order, reach: Reach::Tokens, reason, actor: &actor };
                    position =
                        Some(revoke_in(&mut write, &entry, LatestToken::default(), now).await?.position);
                }
                sqlx::query("DELETE FROM signing_keys WHERE ended_at < $1")
                    .bind(signed(now.minus(ENDED_SECONDS).0))
                    .execute(&mut *write)
                    .await?;
                self.home.host().reached("keys.before_commit");
                write.commit().await?;
                self.home.host().reached("keys.committed");
                Ok(position)
            })
            .await
    }

    /// The sealed secret of this name; the one that `make` gives when there is none, for everybody from now on.
    ///
    /// # Errors
    /// [`StoreError`], or what `make` failed with.
    pub async fn sealed_secret(
        &self,
        name: &'static str,
        make: impl Fn() -> Result<Vec<u8>, StoreError> + Send + Sync,
    ) -> Result<Vec<u8>, StoreError> {
        let make = &make;
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Keys]).await?;
                let known: Option<Vec<u8>> =
                    sqlx::query_scalar("SELECT sealed FROM sealed_secrets WHERE name = $1")
                        .bind(name)
                        .fetch_optional(&mut *write)
                        .await?;
                if let Some(sealed) = known {
                    return Ok(sealed);
                }
                let sealed = make()?;
                sqlx::query("INSERT INTO sealed_secrets (name, sealed) VALUES ($1, $2)")
                    .bind(name)
                    .bind(sealed.as_slice())
                    .execute(&mut *write)
                    .await?;
                self.home.host().reached("secret.before_commit");
                write.commit().await?;
                self.home.host().reached("secret.committed");
                Ok(sealed)
            })
            .await
    }

    /// Puts another seal on a secret.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reseal_secret(&self, name: &'static str, sealed: &[u8]) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Keys]).await?;
                sqlx::query("UPDATE sealed_secrets SET sealed = $1 WHERE name = $2")
                    .bind(sealed)
                    .bind(name)
                    .execute(&mut *write)
                    .await?;
                write.commit().await?;
                Ok(())
            })
            .await
    }
}

async fn rows(transaction: &mut Tx) -> Result<Vec<KeyRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT kid, alg, state, created_at, published_at, active_at, retiring_at, ended_at, token_seconds, sealed, \
         public_jwk FROM signing_keys WHERE ended_at IS NULL ORDER BY created_at, kid",
    )
    .fetch_all(&mut **transaction)
    .await?;
    rows.iter().map(key_from_row).collect()
}

fn key_from_row(row: &AnyRow) -> Result<KeyRow, StoreError> {
    let number = |name: &str| row.try_get::<i64, _>(name).map(unsigned);
    let date = |name: &str| row.try_get::<Option<i64>, _>(name).map(|date| date.map(unsigned));
    Ok(KeyRow {
        kid: row.try_get("kid")?,
        alg: row.try_get("alg")?,
        state: row.try_get("state")?,
        created_at: number("created_at")?,
        published_at: number("published_at")?,
        active_at: date("active_at")?,
        retiring_at: date("retiring_at")?,
        ended_at: date("ended_at")?,
        token_seconds: number("token_seconds")?,
        sealed: row.try_get("sealed")?,
        public_jwk: row.try_get("public_jwk")?,
    })
}

async fn upsert(write: &mut Tx, row: &KeyRow) -> Result<(), StoreError> {
    let KeyRow {
        kid,
        alg,
        state,
        created_at,
        published_at,
        active_at,
        retiring_at,
        ended_at,
        token_seconds,
        sealed,
        public_jwk,
    } = row;
    sqlx::query(
        "INSERT INTO signing_keys (kid, alg, state, created_at, published_at, active_at, retiring_at, ended_at, \
         token_seconds, sealed, public_jwk) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
         ON CONFLICT (kid) DO UPDATE SET state = excluded.state, active_at = excluded.active_at, \
         retiring_at = excluded.retiring_at, ended_at = excluded.ended_at, \
         token_seconds = excluded.token_seconds, sealed = excluded.sealed",
    )
    .bind(kid)
    .bind(alg)
    .bind(state)
    .bind(signed(*created_at))
    .bind(signed(*published_at))
    .bind(active_at.map(signed))
    .bind(retiring_at.map(signed))
    .bind(ended_at.map(signed))
    .bind(signed(*token_seconds))
    .bind(sealed.as_deref())
    .bind(public_jwk)
    .execute(&mut **write)
    .await?;
    Ok(())
}
