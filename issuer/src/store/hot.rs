//! Keeps what was used most, so that a process that starts knows what will be asked for.

use sqlx::Row as _;

use super::changes::FactKind;
use super::database::Lock;
use super::{Store, StoreError, signed, unsigned};

impl Store {
    /// Adds uses to those that are known. What was known counts half from then on, and beyond `places` of each kind the
    /// least used are forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_uses(&self, uses: &[(FactKind, String, u64)], places: u32) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name("hot_principals")]).await?;
                sqlx::query("UPDATE hot_principals SET uses = uses / 2").execute(&mut *write).await?;
                for (kind, id, uses) in uses {
                    sqlx::query(
                        "INSERT INTO hot_principals (kind, id, uses) VALUES ($1, $2, $3) ON CONFLICT (kind, id) \
                         DO UPDATE SET uses = hot_principals.uses + excluded.uses",
                    )
                    .bind(kind.name())
                    .bind(id)
                    // Saturated far below what a sum could overflow.
                    .bind(signed(*uses).min(USES_MAX))
                    .execute(&mut *write)
                    .await?;
                }
                for kind in FactKind::ALL {
                    sqlx::query(
                        "DELETE FROM hot_principals WHERE kind = $1 AND (uses = 0 OR id NOT IN (SELECT id FROM \
                         hot_principals WHERE kind = $1 ORDER BY uses DESC, id LIMIT $2))",
                    )
                    .bind(kind.name())
                    .bind(i64::from(places))
                    .execute(&mut *write)
                    .await?;
                }
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// What was used most, most used first, at most `limit` of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hot(&self, limit: u32) -> Result<Vec<(FactKind, String, u64)>, StoreError> {
        self.home
            .run(move || async move {
                let rows = sqlx::query(
                    "SELECT kind, id, uses FROM hot_principals ORDER BY uses DESC, kind, id LIMIT $1",
                )
                .bind(i64::from(limit))
                .fetch_all(self.home.readers())
                .await?;
                let mut hot = Vec::with_capacity(rows.len());
                for row in rows {
                    let kind: String = row.try_get("kind")?;
                    // A kind of another release is passed over.
                    if let Some(kind) = FactKind::of(&kind) {
                        hot.push((kind, row.try_get("id")?, unsigned(row.try_get("uses")?)));
                    }
                }
                Ok(hot)
            })
            .await
    }
}

const USES_MAX: i64 = 1 << 40;
