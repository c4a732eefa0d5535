//! Changes what roles permit, and has the tokens of all who have them cut off when that is less than before.
//!
//! Who has a role is in the databases of the users, and the role itself in the home database. So those who have it are looked for first; the
//! change and the wishes to cut them off are then one transaction. After it they are looked for again: who got the role in between may
//! have tokens with what it permitted. If that second look does not come to its end, all tokens are cut off.

use sqlx::Row as _;
use tollgate_shared::revocation::Dimension;

use super::cutoffs::Reach;
use super::database::{Database, Lock, Tx};
use super::outbox::{Wish, WishId, Wished, wish, wish_unless_withdrawn, withdraw};
use super::rights::expect;
use super::{FactKind, Revision, Role, Store, StoreError, list_from_json, list_to_json, lost, signed};
use crate::clock::Host;

/// The most users and clients whose tokens are cut off one by one. When more have a role, or it is not known who does, all tokens
/// are cut off: that is one entry for each edge, and everybody refreshes once.
const HOLDERS_MAX: usize = 256;
/// The second look has so many seconds; it takes milliseconds, or as long as the databases are waited for.
pub(crate) const SECOND_LOOK_SECONDS: u64 = 10;
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

    /// That the tokens with this value are cut off for it.
    fn cuts_off<'w>(&'w self, dimension: Dimension, value: &'w str) -> Wish<'w> {
        // Nobody has the locks of these users: a token may be issued at this moment that lives as long as any.
        let (reach, token_until) = (Reach::Tokens, None);
        Wish { dimension, value, reach, reason: REASON, actor: self.actor, token_until }
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
            if let Some(Altered { revision, mut wishes, all }) = altered.await? {
                // From here on nobody is given here what was taken.
                drop(changing);
                if let (Holders::These(known), Some(all)) = (&holders, all) {
                    wishes.extend(self.cut_off_late(change, known, &all, host).await?);
                }
                return Ok((revision, Wished::at(&self.home, wishes)));
            }
        }
        Err(StoreError::Contended)
    }

    /// Wishes the tokens of those cut off who got the role while it was changed: they may have what it permitted. Then it is not
    /// `all` that have to be.
    async fn cut_off_late(
        &self,
        change: &RoleChange<'_>,
        before: &[String],
        all: &WishId,
        host: &dyn Host,
    ) -> Result<Vec<WishId>, StoreError> {
        let mut late = self.holders(change.name).await?;
        if let Holders::These(now) = &mut late {
            now.retain(|holder| !before.contains(holder));
        }
        let late = &late;
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(change.name)]).await?;
                let wishes = cut_off(&mut write, change, late, host).await?;
                withdraw(&mut write, all).await?;
                host.reached("role.before_second_commit");
                write.commit().await?;
                host.reached("role.looked_again");
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

/// A change that was made.
struct Altered {
    /// What the role is then, unless it was deleted.
    revision: Option<Revision>,
    wishes: Vec<WishId>,
    /// That all tokens are cut off, unless it is withdrawn in time.
    all: Option<WishId>,
}

/// Makes the change, in a transaction that has the role's lock; `None` when who has the role has to be known for it.
async fn alter_in(
    write: &mut Tx,
    change: &RoleChange<'_>,
    holders: &Holders,
    host: &dyn Host,
) -> Result<Option<Altered>, StoreError> {
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
    if !takes_away {
        return Ok(Some(Altered { revision, wishes: Vec::new(), all: None }));
    }
    let wishes = cut_off(write, change, holders, host).await?;
    // Of all tokens there are none beyond, so nobody has to be looked for again.
    let all = match holders {
        Holders::These(_) => {
            let order = change.cuts_off(Dimension::Issuer, change.issuer);
            let due = host.seconds().plus(SECOND_LOOK_SECONDS);
            Some(wish_unless_withdrawn(write, order, due, host).await?)
        }
        Holders::Anybody | Holders::NotAsked => None,
    };
    Ok(Some(Altered { revision, wishes, all }))
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
        wishes.push(wish(write, change.cuts_off(dimension, value), host.seconds(), host).await?);
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
