//! Keeps what may happen once: answers to requests that carry an idempotency key, and assertions that were used.

use sqlx::Row as _;
use tollgate_shared::time::UnixSeconds;

use super::database::Lock;
use super::{Store, StoreError, signed, unsigned};

/// The answer that a request with an idempotency key got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Its status.
    pub status: u16,
    /// Its headers, as a JSON object.
    pub headers: String,
    /// Its body.
    pub body: Vec<u8>,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownKey {
    /// Nothing: the request is to be carried out.
    New,
    /// The same request was answered so.
    Answered(KeptAnswer),
    /// Another request had this key.
    Other,
}

impl Store {
    /// What is known of this operator's key, for a request of this digest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn idempotency_key(
        &self,
        operator: &str,
        key: &str,
        request: [u8; 32],
    ) -> Result<KnownKey, StoreError> {
        self.home
            .run(move || async move {
                let row = sqlx::query(
                    "SELECT request, status, headers, body FROM idempotency_keys WHERE operator = $1 AND key = $2",
                )
                .bind(operator)
                .bind(key)
                .fetch_optional(self.home.readers())
                .await?;
                let Some(row) = row else { return Ok(KnownKey::New) };
                let known: Vec<u8> = row.try_get("request")?;
                if known != request {
                    return Ok(KnownKey::Other);
                }
                let status = u16::try_from(unsigned(row.try_get("status")?))
                    .map_err(|_| StoreError::Corrupt("idempotency_keys.status"))?;
                let (headers, body) = (row.try_get("headers")?, row.try_get("body")?);
                Ok(KnownKey::Answered(KeptAnswer { status, headers, body }))
            })
            .await
    }

    /// Keeps the answer to a request with an idempotency key; the first one stays.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_answer(
        &self,
        operator: &str,
        key: &str,
        request: [u8; 32],
        answer: &KeptAnswer,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(key)]).await?;
                sqlx::query(
                    "INSERT INTO idempotency_keys (operator, key, request, status, headers, body, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (operator, key) DO NOTHING",
                )
                .bind(operator)
                .bind(key)
                .bind(request.as_slice())
                .bind(i64::from(answer.status))
                .bind(&answer.headers)
                .bind(answer.body.as_slice())
                .bind(signed(now.0))
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
