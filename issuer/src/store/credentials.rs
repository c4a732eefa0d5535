//! Keeps the credentials of operators and edges, and when each edge was last heard of.

use sqlx::Row as _;
use tollgate_shared::revocation::Position;
use tollgate_shared::time::UnixSeconds;

use super::database::{Lock, Tx};
use super::{Store, StoreError, exists, list_from_json, list_to_json, meta, signed, unsigned};
use crate::clock::Host;
use crate::credential::{CredentialKind, NewCredential, SecretDigest};
use crate::permission::Permissions;

/// The fact of which credential was withdrawn last.
const LAST_WITHDRAWN: &str = "credential_withdrawn_last";

/// Of so many edges at once it is kept when they were last heard of.
const EDGES_AT_ONCE: usize = 500;

/// A credential in force.
#[derive(Debug, Clone)]
pub struct StoredCredential {
    /// Whose it is.
    pub name: String,
    /// What the presented secret must hash to.
    pub digest: SecretDigest,
    /// What an operator may do.
    pub permissions: Permissions,
}

/// When an edge was last heard of, and what it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeSeen {
    /// When.
    pub at: UnixSeconds,
    /// Up to where it had the feed.
    pub position: Position,
}

/// An edge that has a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeRecord {
    /// Its name.
    pub id: String,
    /// Since when.
    pub created_at: UnixSeconds,
    /// When it was last heard of.
    pub seen: Option<EdgeSeen>,
}

impl Store {
    /// Makes a credential for `name`. It is shown by the caller, once.
    ///
    /// # Errors
    /// [`StoreError::Exists`] when `name` has one in force.
    pub async fn add_credential(
        &self,
        kind: CredentialKind,
        name: &str,
        permissions: &Permissions,
        host: &dyn Host,
    ) -> Result<NewCredential, StoreError> {
        self.home
            .run(move || async move {
                let credential = NewCredential::generate(kind, host)?;
                let mut write = self.home.write(&[Lock::Meta]).await?;
                insert(&mut write, (kind, name, permissions), &credential, host.seconds()).await?;
                write.commit().await?;
                Ok(credential)
            })
            .await
    }

    /// Makes the first operator's credential, if there has never been one. `keep` puts it where the operator finds it,
    /// before it is in force: if that fails, nothing has changed.
    ///
    /// # Errors
    /// [`StoreError`], or what `keep` failed with.
    pub async fn add_first_operator(
        &self,
        host: &dyn Host,
        keep: impl Fn(&NewCredential) -> Result<(), StoreError> + Send + Sync,
    ) -> Result<(), StoreError> {
        let keep = &keep;
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Meta]).await?;
                let operators: i64 =
                    sqlx::query_scalar("SELECT COUNT(*) FROM credentials WHERE kind = 'operator'")
                        .fetch_one(&mut *write)
                        .await?;
                if operators == 0 {
                    let credential = NewCredential::generate(CredentialKind::Operator, host)?;
                    keep(&credential)?;
                    host.reached("operator.file_written");
                    let first = (CredentialKind::Operator, "first", &Permissions::Everything);
                    insert(&mut write, first, &credential, host.seconds()).await?;
                }
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// The credential in force with this public id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn credential(
        &self,
        kind: CredentialKind,
        id: &str,
    ) -> Result<Option<StoredCredential>, StoreError> {
        self.home
            .run(move || async move {
                let row = sqlx::query(
            "SELECT name, digest, permissions FROM credentials WHERE id = $1 AND kind = $2 AND withdrawn_at IS NULL",
        )
        .bind(id)
        .bind(kind.name())
        .fetch_optional(self.home.readers())
        .await?;
                let Some(row) = row else { return Ok(None) };
                let digest = SecretDigest::from_bytes(row.try_get("digest")?);
                let digest = digest.ok_or(StoreError::Corrupt("credentials.digest"))?;
                let permissions: String = row.try_get("permissions")?;
                let permissions =
                    Permissions::kept(&list_from_json(&permissions, "credentials.permissions")?);
                Ok(Some(StoredCredential { name: row.try_get("name")?, digest, permissions }))
            })
            .await
    }

    /// All operators with a credential in force, by name, and what each may do.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn operators(&self) -> Result<Vec<(String, Permissions)>, StoreError> {
        self.home
            .run(move || async move {
                let rows = sqlx::query(
                    "SELECT name, permissions FROM credentials WHERE kind = 'operator' AND withdrawn_at IS NULL \
                     ORDER BY name",
                )
                .fetch_all(self.home.readers())
                .await?;
                let mut operators = Vec::with_capacity(rows.len());
                for row in rows {
                    let permissions: String = row.try_get("permissions")?;
                    let permissions = list_from_json(&permissions, "credentials.permissions")?;
                    operators.push((row.try_get("name")?, Permissions::kept(&permissions)));
                }
                Ok(operators)
            })
            .await
    }

    /// Withdraws the credential of `name`.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none in force.
    pub async fn withdraw_credential(
        &self,
        kind: CredentialKind,
        name: &str,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Meta]).await?;
                let withdrawn: Option<String> = sqlx::query_scalar(
                    "UPDATE credentials SET withdrawn_at = $1 WHERE kind = $2 AND name = $3 \
                     AND withdrawn_at IS NULL RETURNING id",
                )
                .bind(signed(now.0))
                .bind(kind.name())
                .bind(name)
                .fetch_optional(&mut *write)
                .await?;
                let withdrawn = withdrawn.ok_or(StoreError::Missing)?;
                // A credential is withdrawn once, so this is never what it was before.
                meta::set(&mut write, LAST_WITHDRAWN, &withdrawn).await?;
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// The id of the credential that was withdrawn last, if one ever was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_withdrawn(&self) -> Result<Option<String>, StoreError> {
        self.home
            .run(move || async move {
                let last = sqlx::query_scalar("SELECT value FROM meta WHERE name = $1").bind(LAST_WITHDRAWN);
                Ok(last.fetch_optional(self.home.readers()).await?)
            })
            .await
    }

    /// All edges with a credential in force, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn edges(&self) -> Result<Vec<EdgeRecord>, StoreError> {
        self.home
            .run(move || async move {
        let rows = sqlx::query(
            "SELECT name, created_at, seen_at, position FROM credentials LEFT JOIN edge_activity ON edge = name \
             WHERE kind = 'edge' AND withdrawn_at IS NULL ORDER BY name",
        )
        .fetch_all(self.home.readers())
        .await?;
        let mut edges = Vec::with_capacity(rows.len());
        for row in rows {
            let created_at: i64 = row.try_get("created_at")?;
            let seen_at: Option<i64> = row.try_get("seen_at")?;
            let position: Option<i64> = row.try_get("position")?;
            let seen = seen_at.zip(position).map(|(at, position)| EdgeSeen {
                at: UnixSeconds(unsigned(at)),
                position: Position(unsigned(position)),
            });
            edges.push(EdgeRecord {
                id: row.try_get("name")?,
                created_at: UnixSeconds(unsigned(created_at)),
                seen,
            });
        }
        Ok(edges)
            })
            .await
    }

    /// Keeps when edges were last heard of, some hundred at once: of ten thousand, one after another would take long.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_edges_seen(&self, seen: &[(String, EdgeSeen)]) -> Result<(), StoreError> {
        for some in seen.chunks(EDGES_AT_ONCE) {
            self.keep_some_seen(some).await?;
        }
        Ok(())
    }

    async fn keep_some_seen(&self, seen: &[(String, EdgeSeen)]) -> Result<(), StoreError> {
        let row = |number: usize| format!("(${}, ${}, ${})", 3 * number + 1, 3 * number + 2, 3 * number + 3);
        let rows: Vec<String> = (0..seen.len()).map(row).collect();
        let statement = &format!(
            "INSERT INTO edge_activity (edge, seen_at, position) VALUES {} ON CONFLICT (edge) \
             DO UPDATE SET seen_at = excluded.seen_at, position = excluded.position \
             WHERE excluded.seen_at >= edge_activity.seen_at",
            rows.join(", ")
        );
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Meta]).await?;
                let mut query = sqlx::query(sqlx::AssertSqlSafe(statement.clone()));
                for (edge, EdgeSeen { at, position }) in seen {
                    query = query.bind(edge.as_str()).bind(signed(at.0)).bind(signed(position.0));
                }
                query.execute(&mut *write).await?;
                write.commit().await?;
                Ok(())
            })
            .await
    }
}

async fn insert(
    write: &mut Tx,
    (kind, name, permissions): (CredentialKind, &str, &Permissions),
    credential: &NewCredential,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO credentials (id, kind, name, digest, created_at, permissions) VALUES ($1, $2, $3, $4, $5, $6)",
    )
        .bind(&credential.id)
        .bind(kind.name())
        .bind(name)
        .bind(credential.digest.as_bytes().as_slice())
        .bind(signed(now.0))
        .bind(list_to_json(&permissions.names()))
        .execute(&mut **write)
        .await
        .map_err(exists)?;
    Ok(())
}
