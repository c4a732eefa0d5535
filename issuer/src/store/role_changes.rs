//! Changes what roles permit, and has the tokens of all who have them cut off when that is less than before.
//!
//! Who has a role is in the databases of the users, and the role itself in the home database. So those who have it are looked for first; the
//! change and the wishes to cut them off are then one transaction. After it they are looked for again: who got the role in between may
//! have tokens with what it permitted.

use sqlx::Row as _;
use tollgate_shared::revocation::Dimension;

use super::cutoffs::Reach;
use super::database::{Database, Lock, Tx};
use super::outbox::{Wish, WishId, Wished, wish};
use super::rights::expect;
use super::{FactKind, Revision, Role, Store, StoreError, list_from_json, list_to_json, lost, signed};
use crate::clock::Host;

/// The most users and clients whose tokens are cut off one by one. When more have a role, or it is not known who does, all tokens
/// are cut off: that is one entry for each edge, and everybody refreshes once.
const HOLDERS_MAX: usize = 256;
/// How often is looked again for those who have a role that somebody else changes.
const TRIES_MAX: u32 = 8;
/// Those whose roles, a JSON array, have a name among them, in its quotation marks. Unlike a pattern, this tells great letters from
/// small ones in every database.
const USERS: &str = "SELECT id FROM users WHERE REPLACE(roles, $1, '') <> roles LIMIT $2";
const CLIENTS: &str = "SELECT id FROM clients WHERE REPLACE(roles, $1, '') <> roles LIMIT $2";
/// Why tokens are cut off.
const REASON: &str = "role permits less";

/// Who has a role.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holders {
    /// These users and clients.
    These(Vec<String>),
    /// Too many to name, or users of a database that is away.
    Anybody,
    /// Nobody looked: it permits no less.
    NotAsked,
}

/// What becomes of a role.
#[derive(Debug, Clone, Copy)]
struct RoleChange<'c> {
    name: &'c str,
    /// What it is then; `None` when it is deleted.
    after: Option<&'c Role>,
    if_version: Option<u64>,
    actor: &'c str,
    /// Whose tokens are cut off when it is not known of whom.
    issuer: &'c str,
}

impl RoleChange<'_> {
    /// Whether it permits less than what this role did.
    fn takes_away(&self, before: &[String]) -> bool {
        lost(before, self.after.map_or(&[], |role| role.permissions.as_slice()))
    }
}

impl Store {
    /// Changes a role. If it permits less, the tokens of all who have it are cut off, which is published when [`Store::publish`]
    /// returns; their sessions go on, and give tokens without it.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Changed`] when this is not the version.
    pub async fn change_role(
        &self,
        role: &Role,
        if_version: Option<u64>,
        (actor, issuer): (&str, &str),
        host: &dyn Host,
    ) -> Result<(Revision, Wished), StoreError> {
        let change = RoleChange { name: &role.name, after: Some(role), if_version, actor, issuer };
        let (revision, wished) = self.alter_role(&change, host).await?;
        Ok((revision.ok_or(StoreError::Missing)?, wished))
    }

    /// Deletes a role. Who has it keeps its name and loses what it permitted: their tokens are cut off, which is published when
    /// [`Store::publish`] returns.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Changed`] when this is not the version.
    pub async fn delete_role(
        &self,
        name: &str,
        if_version: Option<u64>,
        (actor, issuer): (&str, &str),
        host: &dyn Host,
    ) -> Result<Wished, StoreError> {
        let change = RoleChange { name, after: None, if_version, actor, issuer };
        Ok(self.alter_role(&change, host).await?.1)
    }

    async fn alter_role(
        &self,
        change: &RoleChange<'_>,
        host: &dyn Host,
    ) -> Result<(Option<Revision>, Wished), StoreError> {
        let changing = self.changing(FactKind::Role, change.name);
        for _ in 0..TRIES_MAX {
            let (before, _) = self.role(change.name).await?.ok_or(StoreError::Missing)?;
            let holders = match change.takes_away(&before.permissions) {
                true => self.holders(change.name).await?,
                false => Holders::NotAsked,
            };
            host.reached("role.holders_read");
            let found = &holders;
            let altered = self.home.run(move || async move {
                let mut write = self.home.write(&[Lock::Name(change.name)]).await?;
                let altered = alter_in(&mut write, change, found, host).await?;
                if altered.is_some() {
                    host.reached("role.before_commit");
                    write.commit().await?;
                    host.reached("role.committed");
                }
                Ok(altered)
            });
            if let Some((revision, mut wishes)) = altered.await? {
                // From here on nobody is given here what was taken.
                drop(changing);
                wishes.extend(self.cut_off_late(change, &holders, host).await?);
                return Ok((revision, Wished::at(&self.home, wishes)));
            }
        }
        Err(StoreError::Contended)
    }

    /// Wishes the tokens of those cut off who got the role while it was changed: they may have what it permitted.
    async fn cut_off_late(
        &self,
        change: &RoleChange<'_>,
        before: &Holders,
        host: &dyn Host,
    ) -> Result<Vec<WishId>, StoreError> {
        let Holders::These(before) = before else { return Ok(Vec::new()) };
        let late = match self.holders(change.name).await? {
            Holders::These(mut now) => {
                now.retain(|holder| !before.contains(holder));
                if now.is_empty() {
                    return Ok(Vec::new());
                }
                Holders::These(now)
            }
            unknown @ (Holders::Anybody | Holders::NotAsked) => unknown,
        };
        let late = &late;
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(change.name)]).await?;
                let wishes = cut_off(&mut write, change, late, host).await?;
                write.commit().await?;
                Ok(wishes)
            })
            .await
    }

    /// The users who have this role, in all databases, and the clients.
    async fn holders(&self, role: &str) -> Result<Holders, StoreError> {
        // The subject of a client's own token is the client.
        let mut holders = with_role(&self.home, CLIENTS, role).await?;
        for database in self.shards.all() {
            if holders.len() > HOLDERS_MAX {
                return Ok(Holders::Anybody);
            }
            match with_role(database, USERS, role).await {
                Ok(found) => holders.extend(found),
                Err(
                    StoreError::Unreachable
                    | StoreError::Timeout
                    | StoreError::Moving
                    | StoreError::Database(_),
                ) => {
                    return Ok(Holders::Anybody);
                }
                Err(error) => return Err(error),
            }
        }
        // Those of a slot on its way are in two databases.
        holders.sort_unstable();
        holders.dedup();
        let too_many = holders.len() > HOLDERS_MAX;
        Ok(if too_many { Holders::Anybody } else { Holders::These(holders) })
    }
}

/// Makes the change, in a transaction that has the role's lock; `None` when who has the role has to be known for it.
async fn alter_in(
    write: &mut Tx,
    change: &RoleChange<'_>,
    holders: &Holders,
    host: &dyn Host,
) -> Result<Option<(Option<Revision>, Vec<WishId>)>, StoreError> {
    let row = sqlx::query("SELECT permissions, version FROM roles WHERE name = $1")
        .bind(change.name)
        .fetch_optional(&mut **write)
        .await?;
    let version = row.as_ref().map(|row| row.try_get("version")).transpose()?;
    expect(version, change.if_version)?;
    let before: String = row.ok_or(StoreError::Missing)?.try_get("permissions")?;
    let takes_away = change.takes_away(&list_from_json(&before, "roles.permissions")?);
    if takes_away && *holders == Holders::NotAsked {
        return Ok(None);
    }
    let revision = match change.after {
        Some(role) => Some(update(write, role, host).await?),
        None => {
            sqlx::query("DELETE FROM roles WHERE name = $1").bind(change.name).execute(&mut **write).await?;
            None
        }
    };
    let wishes = if takes_away { cut_off(write, change, holders, host).await? } else { Vec::new() };
    Ok(Some((revision, wishes)))
}

async fn update(write: &mut Tx, role: &Role, host: &dyn Host) -> Result<Revision, StoreError> {
    sqlx::query(
        "UPDATE roles SET permissions = $1, description = $2, updated_at = $3, version = version + 1 WHERE name = $4",
    )
    .bind(list_to_json(&role.permissions))
    .bind(&role.description)
    .bind(signed(host.seconds().0))
    .bind(&role.name)
    .execute(&mut **write)
    .await?;
    let row = sqlx::query("SELECT version, created_at, updated_at FROM roles WHERE name = $1")
        .bind(&role.name)
        .fetch_one(&mut **write)
        .await?;
    Revision::from_row(&row)
}

/// Wishes the tokens of all who have the role cut off.
async fn cut_off(
    write: &mut Tx,
    change: &RoleChange<'_>,
    holders: &Holders,
    host: &dyn Host,
) -> Result<Vec<WishId>, StoreError> {
    let whom: Vec<(Dimension, &str)> = match holders {
        Holders::These(subjects) => {
            subjects.iter().map(|subject| (Dimension::Subject, subject.as_str())).collect()
        }
        Holders::Anybody | Holders::NotAsked => vec![(Dimension::Issuer, change.issuer)],
    };
    let mut wishes = Vec::with_capacity(whom.len());
    for (dimension, value) in whom {
        // Nobody has the locks of these users: a token may be issued at this moment that lives as long as any.
        let (reach, actor) = (Reach::Tokens, change.actor);
        let order = Wish { dimension, value, reach, reason: REASON, actor, token_until: None };
        wishes.push(wish(write, order, host.seconds(), host).await?);
    }
    Ok(wishes)
}

/// The ids of those in a database who have the role, one more than are cut off one by one at most.
async fn with_role(database: &Database, query: &'static str, role: &str) -> Result<Vec<String>, StoreError> {
    // In a name neither a quotation mark nor a backslash can be.
    let quoted = &format!("\"{role}\"");
    let limit = i64::try_from(HOLDERS_MAX + 1).unwrap_or(i64::MAX);
    database
        .run(move || async move {
            let found = sqlx::query_scalar(query).bind(quoted).bind(limit);
            Ok(found.fetch_all(database.readers()).await?)
        })
        .await
}
