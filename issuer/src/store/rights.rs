//! Keeps roles with what they permit, and tenants.

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;

use super::changes::FactKind;
use super::cutoffs::Reach;
use super::database::Lock;
use super::meta;
use super::outbox::{Wish, Wished, wish};
use super::{Store, StoreError, exists, list_from_json, list_to_json, signed, unsigned};
use crate::clock::Host;

const ROLES_SEEDED: &str = "roles_seeded";

/// What is kept of everything an operator can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// Counts the changes.
    pub version: u64,
    /// Since when.
    pub created_at: UnixSeconds,
    /// Changed last.
    pub updated_at: UnixSeconds,
}

impl Revision {
    pub(super) fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let number = |name: &str| row.try_get::<i64, _>(name).map(unsigned);
        Ok(Self {
            version: number("version")?,
            created_at: UnixSeconds(number("created_at")?),
            updated_at: UnixSeconds(number("updated_at")?),
        })
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name, as it stands in tokens.
    pub name: String,
    /// The scopes that who has it may ask for.
    pub permissions: Vec<String>,
    /// What it is for.
    pub description: String,
}

/// A customer, to whom users and clients belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id, as it stands in tokens.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Whether its users and clients are refused.
    pub disabled: bool,
}

impl Store {
    /// Adds a role.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub async fn add_role(&self, role: &Role, now: UnixSeconds) -> Result<(), StoreError> {
        let _changing = self.changing(FactKind::Role, &role.name);
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(&role.name)]).await?;
                sqlx::query(
                    "INSERT INTO roles (name, permissions, description, created_at, updated_at) \
                     VALUES ($1, $2, $3, $4, $4)",
                )
                .bind(&role.name)
                .bind(list_to_json(&role.permissions))
                .bind(&role.description)
                .bind(signed(now.0))
                .execute(&mut *write)
                .await
                .map_err(exists)?;
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// Adds these roles, permitting nothing, unless that was done before: one that was deleted since does not come back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn seed_roles(&self, roles: &[(&str, &str)], now: UnixSeconds) -> Result<(), StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Meta]).await?;
                if meta::value(&mut write, ROLES_SEEDED).await?.is_some() {
                    return Ok(());
                }
                for (name, description) in roles {
                    sqlx::query(
                        "INSERT INTO roles (name, permissions, description, created_at, updated_at) \
                         VALUES ($1, '[]', $2, $3, $3) ON CONFLICT (name) DO NOTHING",
                    )
                    .bind(*name)
                    .bind(*description)
                    .bind(signed(now.0))
                    .execute(&mut *write)
                    .await?;
                }
                meta::set(&mut write, ROLES_SEEDED, "1").await?;
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// The roles whose names come after `after`, at most `limit`, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn roles(&self, after: &str, limit: u32) -> Result<Vec<(Role, Revision)>, StoreError> {
        self.home
            .run(move || async move {
                let rows = sqlx::query(
                    "SELECT name, permissions, description, version, created_at, updated_at FROM roles \
                     WHERE name > $1 ORDER BY name LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(self.home.readers())
                .await?;
                rows.iter().map(role_from_row).collect()
            })
            .await
    }

    /// The role of this name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn role(&self, name: &str) -> Result<Option<(Role, Revision)>, StoreError> {
        self.home
            .run(move || async move {
                let row = sqlx::query(
                    "SELECT name, permissions, description, version, created_at, updated_at FROM roles WHERE name = $1",
                )
                .bind(name)
                .fetch_optional(self.home.readers())
                .await?;
                row.as_ref().map(role_from_row).transpose()
            })
            .await
    }

    /// Adds a tenant.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub async fn add_tenant(&self, tenant: &Tenant, now: UnixSeconds) -> Result<(), StoreError> {
        let _changing = self.changing(FactKind::Tenant, &tenant.id);
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(&tenant.id)]).await?;
                sqlx::query(
                    "INSERT INTO tenants (id, name, disabled, created_at, updated_at) VALUES ($1, $2, $3, $4, $4)",
                )
                .bind(&tenant.id)
                .bind(&tenant.name)
                .bind(i64::from(tenant.disabled))
                .bind(signed(now.0))
                .execute(&mut *write)
                .await
                .map_err(exists)?;
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// The tenants whose ids come after `after`, at most `limit`, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tenants(&self, after: &str, limit: u32) -> Result<Vec<(Tenant, Revision)>, StoreError> {
        self.home
            .run(move || async move {
                let rows = sqlx::query(
                    "SELECT id, name, disabled, version, created_at, updated_at FROM tenants \
                     WHERE id > $1 ORDER BY id LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(self.home.readers())
                .await?;
                rows.iter().map(tenant_from_row).collect()
            })
            .await
    }

    /// The tenant of this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tenant(&self, id: &str) -> Result<Option<(Tenant, Revision)>, StoreError> {
        self.home
            .run(move || async move {
                let row = sqlx::query(
                    "SELECT id, name, disabled, version, created_at, updated_at FROM tenants WHERE id = $1",
                )
                .bind(id)
                .fetch_optional(self.home.readers())
                .await?;
                row.as_ref().map(tenant_from_row).transpose()
            })
            .await
    }

    /// Changes a tenant. Disabling it cuts off all its tokens and sessions, which is published when
    /// [`Store::publish`] returns.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Changed`] when this is not the version.
    pub async fn change_tenant(
        &self,
        tenant: &Tenant,
        if_version: Option<u64>,
        actor: &str,
        host: &dyn Host,
    ) -> Result<(Revision, Wished), StoreError> {
        let _changing = self.changing(FactKind::Tenant, &tenant.id);
        self.home
            .run(move || async move {
                let now = host.seconds();
                let mut write = self.home.write(&[Lock::Name(&tenant.id)]).await?;
                let row = sqlx::query(
                    "SELECT id, name, disabled, version, created_at, updated_at FROM tenants WHERE id = $1",
                )
                .bind(&tenant.id)
                .fetch_optional(&mut *write)
                .await?;
                let known = row.as_ref().map(tenant_from_row).transpose()?;
                expect(known.as_ref().map(|(_, revision)| signed(revision.version)), if_version)?;
                sqlx::query(
                    "UPDATE tenants SET name = $1, disabled = $2, updated_at = $3, version = version + 1 WHERE id = $4",
                )
                .bind(&tenant.name)
                .bind(i64::from(tenant.disabled))
                .bind(signed(now.0))
                .bind(&tenant.id)
                .execute(&mut *write)
                .await?;
                let mut wishes = Vec::new();
                if tenant.disabled && !known.is_some_and(|(known, _)| known.disabled) {
                    let order = Wish {
                        dimension: Dimension::Tenant,
                        value: &tenant.id,
                        reach: Reach::Sessions,
                        reason: "tenant disabled",
                        actor,
                        token_until: None,
                    };
                    wishes.push(wish(&mut write, order, now, host).await?);
                }
                let row = sqlx::query("SELECT version, created_at, updated_at FROM tenants WHERE id = $1")
                    .bind(&tenant.id)
                    .fetch_one(&mut *write)
                    .await?;
                let revision = Revision::from_row(&row)?;
                write.commit().await?;
                Ok((revision, Wished::at(&self.home, wishes)))
            })
            .await
    }
}

/// Checks the version that a change expects.
pub(super) fn expect(version: Option<i64>, if_version: Option<u64>) -> Result<(), StoreError> {
    let version = unsigned(version.ok_or(StoreError::Missing)?);
    match if_version {
        Some(expected) if expected != version => Err(StoreError::Changed),
        Some(_) | None => Ok(()),
    }
}

fn role_from_row(row: &AnyRow) -> Result<(Role, Revision), StoreError> {
    let permissions: String = row.try_get("permissions")?;
    let role = Role {
        name: row.try_get("name")?,
        permissions: list_from_json(&permissions, "roles.permissions")?,
        description: row.try_get("description")?,
    };
    Ok((role, Revision::from_row(row)?))
}

fn tenant_from_row(row: &AnyRow) -> Result<(Tenant, Revision), StoreError> {
    let disabled: i64 = row.try_get("disabled")?;
    let tenant = Tenant { id: row.try_get("id")?, name: row.try_get("name")?, disabled: disabled != 0 };
    Ok((tenant, Revision::from_row(row)?))
}
