//! Hands out blocks of status indices, each to one process once.

use tollgate_shared::revocation::{BLOCK_INDICES, RETENTION_SECONDS};
use tollgate_shared::time::UnixSeconds;

use super::database::Lock;
use super::feed_log::{Row, append};
use super::{Store, StoreError, signed};

/// The most blocks there can be: their number is 16 bits.
const BLOCKS_MAX: i64 = 65_536;

/// A block that is this process's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenBlock {
    /// Its number.
    pub number: u16,
    /// No token with an index of this block may live beyond this.
    pub expires_at: UnixSeconds,
}

impl Store {
    /// Takes a block that nobody has had. Its number is in the database before the first index is used, so a crash
    /// wastes indices and never repeats one.
    ///
    /// Numbers last for more than seven years at one an hour. When they run out, the block that expired longest ago is
    /// taken again, if that was so long ago that every edge has dropped it; the log tells edges that were away for
    /// even longer to start from a snapshot.
    ///
    /// # Errors
    /// [`StoreError::NoBlocks`] when every number is in use.
    pub async fn take_block(
        &self,
        now: UnixSeconds,
        expires_at: UnixSeconds,
    ) -> Result<TakenBlock, StoreError> {
        self.home
            .run(move || async move {
        let mut write = self.home.write(&[Lock::Feed]).await?;
        let next: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(block) + 1, 0) FROM status_blocks")
            .fetch_one(&mut *write)
            .await?;
        let number = if next < BLOCKS_MAX {
            sqlx::query("INSERT INTO status_blocks (block, taken_at, expires_at) VALUES ($1, $2, $3)")
                .bind(next)
                .bind(signed(now.0))
                .bind(signed(expires_at.0))
                .execute(&mut *write)
                .await?;
            next
        } else {
            let forgotten = now.minus(2 * RETENTION_SECONDS);
            let oldest = "UPDATE status_blocks SET taken_at = $1, expires_at = $2 WHERE block = \
                          (SELECT block FROM status_blocks WHERE expires_at < $3 ORDER BY expires_at, block LIMIT 1) \
                          RETURNING block";
            let number: i64 = sqlx::query_scalar(oldest)
                .bind(signed(now.0))
                .bind(signed(expires_at.0))
                .bind(signed(forgotten.0))
                .fetch_optional(&mut *write)
                .await?
                .ok_or(StoreError::NoBlocks)?;
            // Before the rows go: the next position follows from the highest one there is.
            append(&mut write, Row::reuse(expires_at, now)).await?;
            let first = number * i64::from(BLOCK_INDICES);
            sqlx::query("DELETE FROM feed_log WHERE kind = 'index' AND status_index BETWEEN $1 AND $2")
                .bind(first)
                .bind(first + i64::from(BLOCK_INDICES) - 1)
                .execute(&mut *write)
                .await?;
            number
        };
        self.home.host().reached("block.before_commit");
        write.commit().await?;
        self.home.host().reached("block.committed");
        let number = u16::try_from(number).map_err(|_| StoreError::Corrupt("status_blocks.block"))?;
        Ok(TakenBlock { number, expires_at })
            })
            .await
    }
}
