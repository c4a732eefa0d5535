//! Keeps users: who has which name, in the home database, and everything else where the user's slot is.

use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::time::UnixSeconds;

use super::api_keys::revoke_all_of;
use super::database::{Database, Lock, Tx};
use super::outbox::Wished;
use super::session_writes::end_all;
use super::sessions::EndReason;
use super::shards::slot_of;
use super::{Store, StoreError, exists, list_from_json, list_to_json, signed, unsigned};
use crate::api_key::ApiKeyOwner;
use crate::clock::Host;

/// A name without a user that is older than this was left by a crash, and free.
const ORPHAN_SECONDS: u64 = 60;

/// The id to look up when there is no user of this name, so that the work is the same: one for each name, because the
/// databases that ids are looked up in are not all equally fast. Should anybody have it, the name is another.
#[must_use]
pub fn decoy_id(username: &str) -> String {
    format!("u_nobody_{:x}", Sha256::digest(username))
}

/// A user, as logins and quotas need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `sub` of the tokens.
    pub id: String,
    /// By what the user logs in.
    pub username: String,
    /// Which limit applies.
    pub plan: String,
    /// What the user is.
    pub roles: Vec<String>,
    /// What the user may ask for, apart from what the roles permit.
    pub scopes: Vec<String>,
    /// The customer the user belongs to.
    pub tenant: Option<String>,
    /// Whether logins are refused.
    pub disabled: bool,
}

/// A user that is to be.
#[derive(Clone)]
pub struct NewUser {
    /// Who.
    pub user: User,
    /// The password's hash, as it is stored.
    pub password_hash: String,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NewUser").field("user", &self.user.id).finish_non_exhaustive()
    }
}

/// A user as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Who.
    pub user: User,
    /// The password's hash, as it is stored.
    pub password_hash: String,
    /// When the password was changed last.
    pub password_changed_at: UnixSeconds,
    /// Counts the changes.
    pub version: u64,
    /// Since when.
    pub created_at: UnixSeconds,
    /// Changed last.
    pub updated_at: UnixSeconds,
}

impl std::fmt::Debug for UserRecord {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("UserRecord");
        shown.field("user", &self.user).field("version", &self.version).finish_non_exhaustive()
    }
}

/// A change of a user: all of what may be changed, as it shall be.
#[derive(Debug, Clone)]
pub struct UserChange<'c> {
    /// The user, under the id and name there is.
    pub user: &'c User,
    /// The hash of a new password, if it is changed.
    pub password_hash: Option<&'c str>,
    /// Only if this is the version; whatever it is when `None`.
    pub if_version: Option<u64>,
    /// Who changes it.
    pub actor: &'c str,
}

/// The columns of a user, by names that no other table has.
pub(super) const USER_COLUMNS: &str = "users.id AS user_key, users.username AS user_name, \
    users.password_hash AS user_hash, users.plan AS user_plan, users.roles AS user_roles, users.scopes AS user_scopes, \
    users.tenant AS user_tenant, users.disabled AS user_disabled, users.password_changed_at AS user_password_changed_at, \
    users.version AS user_version, users.created_at AS user_created_at, users.updated_at AS user_updated_at";

impl UserRecord {
    /// The user of a row with [`USER_COLUMNS`]; `None` when there is none in it.
    pub(super) fn from_row(row: &AnyRow) -> Result<Option<Self>, StoreError> {
        let Some(id) = row.try_get::<Option<String>, _>("user_key")? else { return Ok(None) };
        let date = |name: &str| row.try_get::<i64, _>(name).map(|date| UnixSeconds(unsigned(date)));
        let (roles, scopes): (String, String) = (row.try_get("user_roles")?, row.try_get("user_scopes")?);
        let disabled: i64 = row.try_get("user_disabled")?;
        Ok(Some(Self {
            user: User {
                id,
                username: row.try_get("user_name")?,
                plan: row.try_get("user_plan")?,
                roles: list_from_json(&roles, "users.roles")?,
                scopes: list_from_json(&scopes, "users.scopes")?,
                tenant: row.try_get("user_tenant")?,
                disabled: disabled != 0,
            },
            password_hash: row.try_get("user_hash")?,
            password_changed_at: date("user_password_changed_at")?,
            version: unsigned(row.try_get("user_version")?),
            created_at: date("user_created_at")?,
            updated_at: date("user_updated_at")?,
        }))
    }
}

impl Store {
    /// Adds a user. Who may be called so is settled first, in the home database; a name whose user never came, because of
    /// a crash, is free again after a minute.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when there is one of this name or id.
    pub async fn add_user(&self, new: &NewUser, now: UnixSeconds) -> Result<(), StoreError> {
        let NewUser { user, password_hash } = new;
        self.take_name(&user.username, &user.id, now).await?;
        self.home.host().reached("user.name_taken");
        let slot = slot_of(&user.id);
        let operation = move |database: Database| async move {
            let User { id, username, plan, roles, scopes, tenant, disabled } = user;
            let mut write = database.write_user(id).await?;
            sqlx::query(
                "INSERT INTO users (id, username, password_hash, plan, roles, scopes, tenant, disabled, created_at, \
                 updated_at, password_changed_at, slot) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9, $10)",
            )
            .bind(id)
            .bind(username)
            .bind(password_hash)
            .bind(plan)
            .bind(list_to_json(roles))
            .bind(list_to_json(scopes))
            .bind(tenant)
            .bind(i64::from(*disabled))
            .bind(signed(now.0))
            .bind(i64::from(slot))
            .execute(&mut *write)
            .await
            .map_err(exists)?;
            database.host().reached("user.before_commit");
            write.commit().await?;
            database.host().reached("user.committed");
            Ok(())
        };
        self.shards.on_slot(slot, operation).await
    }

    async fn take_name(&self, username: &str, id: &str, now: UnixSeconds) -> Result<(), StoreError> {
        let holder = self.named(username).await?;
        let orphan = match &holder {
            Some((holder, taken_at)) if taken_at.plus(ORPHAN_SECONDS) < now => {
                if self.user(holder).await?.is_some() {
                    return Err(StoreError::Exists);
                }
                Some(holder.as_str())
            }
            Some(_) => return Err(StoreError::Exists),
            None => None,
        };
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(username)]).await?;
                if let Some(orphan) = orphan {
                    sqlx::query("DELETE FROM user_names WHERE username = $1 AND user_id = $2")
                        .bind(username)
                        .bind(orphan)
                        .execute(&mut *write)
                        .await?;
                }
                sqlx::query("INSERT INTO user_names (username, user_id, created_at) VALUES ($1, $2, $3)")
                    .bind(username)
                    .bind(id)
                    .bind(signed(now.0))
                    .execute(&mut *write)
                    .await
                    .map_err(exists)?;
                self.home.host().reached("user.name_before_commit");
                write.commit().await?;
                Ok(())
            })
            .await
    }

    async fn named(&self, username: &str) -> Result<Option<(String, UnixSeconds)>, StoreError> {
        self.home
            .run(move || async move {
                let row = sqlx::query("SELECT user_id, created_at FROM user_names WHERE username = $1")
                    .bind(username)
                    .fetch_optional(self.home.readers())
                    .await?;
                let Some(row) = row else { return Ok(None) };
                let date: i64 = row.try_get("created_at")?;
                Ok(Some((row.try_get("user_id")?, UnixSeconds(unsigned(date)))))
            })
            .await
    }

    /// The user of this name. Looks as often in the databases when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user_named(&self, username: &str) -> Result<Option<UserRecord>, StoreError> {
        let named = self.named(username).await?;
        let id = named.map_or_else(|| decoy_id(username), |(id, _)| id);
        Ok(self.user(&id).await?.filter(|found| found.user.username == username))
    }

    /// The user of this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn user(&self, id: &str) -> Result<Option<UserRecord>, StoreError> {
        let slot = slot_of(id);
        let operation = move |database: Database| async move {
            // In one statement, which sees one state of the slot and of what is in it.
            let statement = format!(
                "SELECT {USER_COLUMNS} FROM owned_slots LEFT JOIN users ON users.id = $1 WHERE owned_slots.slot = $2"
            );
            let row = sqlx::query(sqlx::AssertSqlSafe(statement))
                .bind(id)
                .bind(i64::from(slot))
                .fetch_optional(database.readers())
                .await?;
            UserRecord::from_row(&row.ok_or(StoreError::Moving)?)
        };
        self.shards.on_slot(slot, operation).await
    }

    /// The users whose names come after `after`, at most `limit` of them, by name, and the name to go on after if there
    /// are more. There may be fewer than `limit`: a name can be taken whose user is not there yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn users(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<UserRecord>, Option<String>), StoreError> {
        let mut names: Vec<(String, String)> = self
            .home
            .run(move || async move {
                let names = sqlx::query(
                    "SELECT username, user_id FROM user_names WHERE username > $1 ORDER BY username LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit) + 1)
                .fetch_all(self.home.readers())
                .await?;
                names.iter().map(|row| Ok((row.try_get("username")?, row.try_get("user_id")?))).collect()
            })
            .await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = names.len() > limit;
        names.truncate(limit);
        let next = names.last().filter(|_| more).map(|(name, _)| name.clone());
        let mut users = Vec::with_capacity(names.len());
        for (_, id) in names {
            users.extend(self.user(&id).await?);
        }
        Ok((users, next))
    }

    /// Deletes a user, ends every session and cuts off every token, which is published when [`Store::publish`] returns. The
    /// name is free then, and the user's API keys are revoked; no user ever has this id again.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Changed`] when this is not the version.
    pub async fn delete_user(
        &self,
        id: &str,
        if_version: Option<u64>,
        actor: &str,
        host: &dyn Host,
    ) -> Result<(User, Wished), StoreError> {
        let operation = move |database: Database| async move {
            let mut write = database.write_user(id).await?;
            let known = user_in(&mut write, id).await?.ok_or(StoreError::Missing)?;
            if if_version.is_some_and(|version| version != known.version) {
                return Err(StoreError::Changed);
            }
            let wish = end_all(&mut write, id, EndReason::Deleted, actor, host).await?;
            for statement in ["DELETE FROM devices WHERE user_id = $1", "DELETE FROM users WHERE id = $1"] {
                sqlx::query(statement).bind(id).execute(&mut *write).await?;
            }
            host.reached("user.deletion_before_commit");
            write.commit().await?;
            Ok((known.user, Wished::at(&database, vec![wish])))
        };
        let (user, wished) = self.shards.on_slot(slot_of(id), operation).await?;
        host.reached("user.deleted");
        let username = user.username.as_str();
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(username)]).await?;
                sqlx::query("DELETE FROM user_names WHERE username = $1 AND user_id = $2")
                    .bind(username)
                    .bind(id)
                    .execute(&mut *write)
                    .await?;
                revoke_all_of(&mut write, &ApiKeyOwner::User(id.to_owned()), host.seconds()).await?;
                host.reached("user.name_free_before_commit");
                write.commit().await?;
                host.reached("user.name_free");
                Ok(())
            })
            .await?;
        Ok((user, wished))
    }
}

/// The user of this id, within a transaction.
pub(super) async fn user_in(transaction: &mut Tx, id: &str) -> Result<Option<UserRecord>, StoreError> {
    let statement = format!("SELECT {USER_COLUMNS} FROM users WHERE id = $1");
    let row = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(id).fetch_optional(&mut **transaction).await?;
    Ok(row.as_ref().map(UserRecord::from_row).transpose()?.flatten())
}
