//! Keeps the facts there is one of: the feed's epoch and how far its clock has come.

use tollgate_shared::revocation::Epoch;
use tollgate_shared::time::UnixMillis;

use super::database::{Lock, Tx};
use super::{Store, StoreError};
use crate::clock::{Host, random};

const EPOCH: &str = "feed_epoch";
const CLOCK_FLOOR: &str = "feed_clock_floor_ms";

impl Store {
    /// The epoch of the feed, drawn when the database was new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn epoch(&self, host: &dyn Host) -> Result<Epoch, StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Meta]).await?;
                let known = value(&mut write, EPOCH).await?;
                let epoch = match known {
                    Some(text) => Epoch::from_hex(&text).ok_or(StoreError::Corrupt(EPOCH))?,
                    None => {
                        let epoch = Epoch(random::<16>(host)?);
                        set(&mut write, EPOCH, &epoch.to_hex()).await?;
                        epoch
                    }
                };
                write.commit().await?;
                Ok(epoch)
            })
            .await
    }

    /// The epoch of the feed, as the database has it now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_epoch(&self) -> Result<Option<Epoch>, StoreError> {
        self.home
            .run(move || async move {
                let text = value(&mut self.home.read().await?, EPOCH).await?;
                text.map(|text| Epoch::from_hex(&text).ok_or(StoreError::Corrupt(EPOCH))).transpose()
            })
            .await
    }

    /// Draws a new epoch, whatever there is: also that of a database that was set back to before an earlier renewal. What edges have
    /// of any other is of no use to them then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn renew_epoch(&self, host: &dyn Host) -> Result<Epoch, StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Meta]).await?;
                let epoch = Epoch(random::<16>(host)?);
                set(&mut write, EPOCH, &epoch.to_hex()).await?;
                write.commit().await?;
                Ok(epoch)
            })
            .await
    }

    /// Raises the floor below which the feed's clock never shows again; tells where it is now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn raise_clock_floor(&self, to: UnixMillis) -> Result<UnixMillis, StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Meta]).await?;
                let known = match value(&mut write, CLOCK_FLOOR).await? {
                    Some(text) => text.parse().map_err(|_| StoreError::Corrupt(CLOCK_FLOOR))?,
                    None => 0,
                };
                let floor = to.0.max(known);
                set(&mut write, CLOCK_FLOOR, &floor.to_string()).await?;
                write.commit().await?;
                Ok(UnixMillis(floor))
            })
            .await
    }
}

pub(super) async fn value(write: &mut Tx, name: &str) -> Result<Option<String>, StoreError> {
    let value = sqlx::query_scalar("SELECT value FROM meta WHERE name = $1").bind(name);
    Ok(value.fetch_optional(&mut **write).await?)
}

pub(super) async fn set(write: &mut Tx, name: &str, value: &str) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
        .bind(name)
        .bind(value)
        .execute(&mut **write)
        .await?;
    Ok(())
}
