//! Reads from the feed's history which tokens of a status list were revoked, and which lists there are.

use tollgate_shared::revocation::{BLOCK_INDICES, LIST_INDICES, RETENTION_SECONDS};
use tollgate_shared::time::UnixSeconds;

use super::{Store, StoreError, signed};

/// The blocks of one list.
const BLOCKS: u32 = LIST_INDICES / BLOCK_INDICES;
/// The most lists there can be: the number of a block is 16 bits.
pub const STATUS_LISTS_MAX: u32 = (1 << 16) / BLOCKS;

impl Store {
    /// The places of revoked tokens in this list, ascending; `None` when none of its blocks was ever handed out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoked_in_list(&self, list: u32) -> Result<Option<Vec<u32>>, StoreError> {
        let first = i64::from(list) * i64::from(LIST_INDICES);
        let first_block = i64::from(list) * i64::from(BLOCKS);
        self.home
            .run(move || async move {
                let mut read = self.home.read().await?;
                let block: Option<i64> =
                    sqlx::query_scalar("SELECT block FROM status_blocks WHERE block BETWEEN $1 AND $2 LIMIT 1")
                        .bind(first_block)
                        .bind(first_block + i64::from(BLOCKS) - 1)
                        .fetch_optional(&mut *read)
                        .await?;
                if block.is_none() {
                    return Ok(None);
                }
                let indices: Vec<i64> = sqlx::query_scalar(
                    "SELECT status_index FROM feed_log WHERE kind = 'index' AND status_index BETWEEN $1 AND $2 \
                     ORDER BY status_index",
                )
                .bind(first)
                .bind(first + i64::from(LIST_INDICES) - 1)
                .fetch_all(&mut *read)
                .await?;
                read.commit().await?;
                let place = |index: i64| {
                    u32::try_from(index - first).map_err(|_| StoreError::Corrupt("feed_log.status_index"))
                };
                indices.into_iter().map(place).collect::<Result<_, _>>().map(Some)
            })
            .await
    }

    /// How many lists there are: blocks are handed out in the order of their numbers, so those of the lists are the ones below.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn status_list_count(&self) -> Result<u32, StoreError> {
        self.home
            .run(move || async move {
                let last: Option<i64> = sqlx::query_scalar("SELECT MAX(block) FROM status_blocks")
                    .fetch_one(self.home.readers())
                    .await?;
                let count = last.map(|block| u32::try_from(block / i64::from(BLOCKS) + 1)).transpose();
                count.map(Option::unwrap_or_default).map_err(|_| StoreError::Corrupt("status_blocks.block"))
            })
            .await
    }

    /// The numbers of the lists of which a token may be in force at `now`, ascending.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn status_lists(&self, now: UnixSeconds) -> Result<Vec<u32>, StoreError> {
        self.home
            .run(move || async move {
                let lists: Vec<i64> = sqlx::query_scalar(
                    "SELECT DISTINCT block / $1 AS list FROM status_blocks WHERE expires_at >= $2 ORDER BY list",
                )
                .bind(i64::from(BLOCKS))
                .bind(signed(now.minus(RETENTION_SECONDS).0))
                .fetch_all(self.home.readers())
                .await?;
                let number = |list| u32::try_from(list).map_err(|_| StoreError::Corrupt("status_blocks.block"));
                lists.into_iter().map(number).collect()
            })
            .await
    }
}
