//! Changes users; what a change takes away from them is cut off with it.

use tollgate_shared::time::UnixSeconds;

use super::cutoffs::Reach;
use super::database::Database;
use super::outbox::Wished;
use super::session_writes::{cut_off_tokens, end_all};
use super::sessions::EndReason;
use super::shards::slot_of;
use super::users::{User, UserChange, UserRecord, user_in};
use super::{Store, StoreError, list_to_json, lost, signed};
use crate::clock::Host;

/// For how long a process that will hash a password again is alone with that, in seconds.
const REHASH_SECONDS: u64 = 60;

impl Store {
    /// Changes a user. A new password and being disabled end every session, and with a new password every device is
    /// forgotten; a role or scope that is taken away, another plan or tenant cut off the tokens that still say so. That is
    /// published when [`Store::publish`] returns.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Changed`] when this is not the version.
    pub async fn change_user(
        &self,
        change: &UserChange<'_>,
        host: &dyn Host,
    ) -> Result<(UserRecord, Wished), StoreError> {
        let UserChange { user, password_hash, if_version, actor } = change;
        let User { id, username: _, plan, roles, scopes, tenant, disabled } = user;
        let operation = move |database: Database| async move {
            let now = host.seconds();
            let mut write = database.write_user(id).await?;
            let known = user_in(&mut write, id).await?.ok_or(StoreError::Missing)?;
            if if_version.is_some_and(|version| version != known.version) {
                return Err(StoreError::Changed);
            }
            sqlx::query(
                "UPDATE users SET plan = $1, roles = $2, scopes = $3, tenant = $4, disabled = $5, updated_at = $6, \
                 version = version + 1 WHERE id = $7",
            )
            .bind(plan)
            .bind(list_to_json(roles))
            .bind(list_to_json(scopes))
            .bind(tenant)
            .bind(i64::from(*disabled))
            .bind(signed(now.0))
            .bind(id)
            .execute(&mut *write)
            .await?;
            let mut wishes = Vec::new();
            if let Some(hash) = password_hash {
                host.reached("user.rights_written");
                sqlx::query(
                    "UPDATE users SET password_hash = $1, password_changed_at = $2, rehash_until = 0 WHERE id = $3",
                )
                .bind(*hash)
                // A second change in one second is a change too.
                .bind(signed(now.max(known.password_changed_at.plus(1)).0))
                .bind(id)
                .execute(&mut *write)
                .await?;
                // Whoever knew the old one may have made devices known.
                sqlx::query("DELETE FROM devices WHERE user_id = $1").bind(id).execute(&mut *write).await?;
                host.reached("user.password_written");
                wishes.push(end_all(&mut write, id, EndReason::Password, actor, host).await?);
            }
            if *disabled && !known.user.disabled {
                wishes.push(end_all(&mut write, id, EndReason::Disabled, actor, host).await?);
            } else if takes_away(&known.user, user) {
                let what = (Reach::Tokens, "rights changed");
                wishes.push(cut_off_tokens(&mut write, id, what, actor, host).await?);
            }
            let changed = user_in(&mut write, id).await?.ok_or(StoreError::Missing)?;
            host.reached("user.change_before_commit");
            write.commit().await?;
            host.reached("user.changed");
            Ok((changed, Wished::at(&database, wishes)))
        };
        self.shards.on_slot(slot_of(id), operation).await
    }

    /// Whether this process is the one that hashes the password of `hash` again: one of all replicas, once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_rehash(&self, id: &str, hash: &str, now: UnixSeconds) -> Result<bool, StoreError> {
        let operation = move |database: Database| async move {
            let mut write = database.write_user(id).await?;
            let claimed = sqlx::query(
                "UPDATE users SET rehash_until = $1 WHERE id = $2 AND password_hash = $3 AND rehash_until < $4",
            )
            .bind(signed(now.plus(REHASH_SECONDS).0))
            .bind(id)
            .bind(hash)
            .bind(signed(now.0))
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(claimed.rows_affected() == 1)
        };
        self.shards.on_slot(slot_of(id), operation).await
    }

    /// Puts a hash of the same password in the place of `hash`, if that is still there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rehash(&self, id: &str, hash: &str, better: &str) -> Result<bool, StoreError> {
        let operation = move |database: Database| async move {
            let mut write = database.write_user(id).await?;
            let replaced = sqlx::query(
                "UPDATE users SET password_hash = $1, rehash_until = 0 WHERE id = $2 AND password_hash = $3",
            )
            .bind(better)
            .bind(id)
            .bind(hash)
            .execute(&mut *write)
            .await?;
            write.commit().await?;
            Ok(replaced.rows_affected() == 1)
        };
        self.shards.on_slot(slot_of(id), operation).await
    }
}

/// Whether a token issued before the change says more than the user may after it.
fn takes_away(before: &User, after: &User) -> bool {
    lost(&before.roles, &after.roles)
        || lost(&before.scopes, &after.scopes)
        || before.plan != after.plan
        || before.tenant != after.tenant
}
