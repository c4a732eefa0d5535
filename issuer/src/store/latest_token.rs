//! Finds the dates of the latest tokens, which a cut-off has to cover.

use sqlx::Row as _;
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;

use super::database::Database;
use super::sessions::AHEAD_SECONDS_MAX;
use super::shards::slot_of;
use super::{RevocationOrder, Store, StoreError, unsigned};
use crate::clock::Host;

/// The dates of the latest tokens that a cut-off is to cover.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LatestToken {
    /// The latest `iat`.
    pub(super) issued_at: UnixSeconds,
    /// The latest `exp`, when it is known that no later one can come.
    pub(super) until: Option<UnixSeconds>,
}

impl Store {
    /// The dates of the latest tokens that a cut-off is to cover. They may be ahead of the clock, which may have been set back
    /// since.
    pub(super) async fn latest_token(
        &self,
        order: &RevocationOrder,
        host: &dyn Host,
    ) -> Result<LatestToken, StoreError> {
        let RevocationOrder::Value { dimension, issuer: None, value } = order else {
            return Ok(LatestToken::default());
        };
        let query = match dimension {
            // Where the user is: what another database has is nothing to this one.
            Dimension::Subject => return known_or_ahead(self.latest_token_of(value).await, host),
            Dimension::Client => "SELECT MAX(last_issued_at) FROM sessions WHERE client_id = $1",
            Dimension::Tenant => "SELECT MAX(last_issued_at) FROM sessions WHERE tenant = $1",
            Dimension::Issuer => "SELECT MAX(last_issued_at) FROM sessions WHERE $1 <> ''",
            Dimension::Token | Dimension::Session | Dimension::Key => return Ok(LatestToken::default()),
        };
        let mut latest = LatestToken::default();
        for database in self.shards.all() {
            let found = database
                .run(async || {
                    let issued_at: Option<i64> =
                        sqlx::query_scalar(query).bind(value).fetch_one(database.readers()).await?;
                    let issued_at = issued_at.map(|date| UnixSeconds(unsigned(date))).unwrap_or_default();
                    Ok(LatestToken { issued_at, until: None })
                })
                .await;
            latest.issued_at = latest.issued_at.max(known_or_ahead(found, host)?.issued_at);
        }
        Ok(latest)
    }

    async fn latest_token_of(&self, user_id: &str) -> Result<LatestToken, StoreError> {
        let slot = slot_of(user_id);
        let operation = move |database: Database| async move {
            let mut read = database.read_slot(slot).await?;
            let row = sqlx::query(
                "SELECT MAX(last_issued_at) AS issued_at, MAX(token_until) AS until FROM sessions WHERE user_id = $1",
            )
            .bind(user_id)
            .fetch_one(&mut *read)
            .await?;
            let date = |date: Option<i64>| date.map(|date| UnixSeconds(unsigned(date)));
            let issued_at = date(row.try_get("issued_at")?).unwrap_or_default();
            Ok(LatestToken { issued_at, until: date(row.try_get("until")?) })
        };
        self.shards.on_slot(slot, operation).await
    }
}

/// What a database says; of one that is away, that its tokens may be dated as far ahead as any. Everybody else's must be cut
/// off all the same.
fn known_or_ahead(
    found: Result<LatestToken, StoreError>,
    host: &dyn Host,
) -> Result<LatestToken, StoreError> {
    match found {
        Err(StoreError::Unreachable | StoreError::Timeout | StoreError::Moving | StoreError::Database(_)) => {
            let issued_at = host.seconds().plus(AHEAD_SECONDS_MAX - 1);
            Ok(LatestToken { issued_at, until: None })
        }
        found => found,
    }
}
