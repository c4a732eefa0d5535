//! Keeps what may happen once: answers to requests that carry an idempotency key, and assertions that were used.

use sqlx::Row as _;
use tollgate_shared::time::UnixSeconds;

use super::database::{Lock, Tx};
use super::{Store, StoreError, signed, unsigned};

/// How long carrying out a request may take, in seconds.
const RESERVED_SECONDS: u64 = 60;

/// The answer that a request with an idempotency key got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers, as a JSON object.
    pub headers: String,
    /// Its body, sealed.
    pub body: Vec<u8>,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownKey {
    /// Nothing until now: the request is to be carried out.
    Reserved,
    /// The same request is being carried out.
    InProgress,
    /// The same request was answered so.
    Answered(KeptAnswer),
    /// Another request had this key.
    Other,
}

impl Store {
    /// Reserves an operator's key for a request of this digest, or tells what is known of it. A reservation that is older
    /// than a minute was left by a crash, and passes to who asks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reserve_key(
        &self,
        operator: &str,
        key: &str,
        request: [u8; 32],
        now: UnixSeconds,
    ) -> Result<KnownKey, StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(key)]).await?;
                let reserved = sqlx::query(
                    "INSERT INTO idempotency_keys (operator, key, request, status, headers, body, created_at) \
                     VALUES ($1, $2, $3, 0, '', $4, $5) ON CONFLICT (operator, key) DO UPDATE \
                     SET created_at = excluded.created_at WHERE idempotency_keys.status = 0 \
                     AND idempotency_keys.request = excluded.request AND idempotency_keys.created_at < $6",
                )
                .bind(operator)
                .bind(key)
                .bind(request.as_slice())
                .bind([].as_slice())
                .bind(signed(now.0))
                .bind(signed(now.minus(RESERVED_SECONDS).0))
                .execute(&mut *write)
                .await?;
                let known = known_in(&mut write, operator, key, request).await?;
                write.commit().await?;
                Ok(if reserved.rows_affected() == 1 { KnownKey::Reserved } else { known })
            })
            .await
    }

    /// Keeps the answer to the request for which a key was reserved; the first one stays.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_answer(
        &self,
        operator: &str,
        key: &str,
        answer: &KeptAnswer,
    ) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(key)]).await?;
                sqlx::query(
                    "UPDATE idempotency_keys SET status = $1, headers = $2, body = $3 \
                     WHERE operator = $4 AND key = $5 AND status = 0",
                )
                .bind(i64::from(answer.status))
                .bind(&answer.headers)
                .bind(answer.body.as_slice())
                .bind(operator)
                .bind(key)
                .execute(&mut *write)
                .await?;
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// Gives up a reservation: nothing was done, and the key may be tried again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release_key(&self, operator: &str, key: &str) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(key)]).await?;
                sqlx::query("DELETE FROM idempotency_keys WHERE operator = $1 AND key = $2 AND status = 0")
                    .bind(operator)
                    .bind(key)
                    .execute(&mut *write)
                    .await?;
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// Marks an assertion as used; `false` when it was used before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn use_assertion(&self, digest: [u8; 32], until: UnixSeconds) -> Result<bool, StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                let used = sqlx::query(
                    "INSERT INTO used_assertions (digest, until) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING",
                )
                .bind(digest.as_slice())
                .bind(signed(until.0))
                .execute(&mut *write)
                .await?;
                write.commit().await?;
                Ok(used.rows_affected() == 1)
            })
            .await
    }

    /// Forgets answers from before a date, and assertions that are over at `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_once(&self, answers_before: UnixSeconds, now: UnixSeconds) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                for (statement, date) in [
                    ("DELETE FROM idempotency_keys WHERE created_at < $1", answers_before),
                    ("DELETE FROM used_assertions WHERE until < $1", now),
                ] {
                    sqlx::query(statement).bind(signed(date.0)).execute(&mut *write).await?;
                }
                write.commit().await?;
                Ok(())
            })
            .await
    }
}

async fn known_in(
    write: &mut Tx,
    operator: &str,
    key: &str,
    request: [u8; 32],
) -> Result<KnownKey, StoreError> {
    let row = sqlx::query(
        "SELECT request, status, headers, body FROM idempotency_keys WHERE operator = $1 AND key = $2",
    )
    .bind(operator)
    .bind(key)
    .fetch_one(&mut **write)
    .await?;
    let known: Vec<u8> = row.try_get("request")?;
    if known != request {
        return Ok(KnownKey::Other);
    }
    let status = u16::try_from(unsigned(row.try_get("status")?))
        .map_err(|_| StoreError::Corrupt("idempotency_keys.status"))?;
    if status == 0 {
        return Ok(KnownKey::InProgress);
    }
    let (headers, body) = (row.try_get("headers")?, row.try_get("body")?);
    Ok(KnownKey::Answered(KeptAnswer { status, headers, body }))
}
