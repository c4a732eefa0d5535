//! Decides what operators may do to roles and tenants.

use super::{Actor, Condition, Entry, OrderError, named, text, tokens};
use crate::app::App;
use crate::audit::Action;
use crate::oauth::scope::is_scope_token;
use crate::store::{Revision, Role, StoreError, Tenant};

/// What shall be other than it is; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TenantPatch {
    /// What people call it.
    pub name: Option<String>,
    /// Whether its users and clients are refused.
    pub disabled: Option<bool>,
}

/// What shall be other than it is; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolePatch {
    /// The scopes that who has the role may ask for.
    pub permissions: Option<Vec<String>>,
    /// What the role is for.
    pub description: Option<String>,
}

fn checked_role(role: &Role) -> Result<(), OrderError> {
    tokens("permissions", &role.permissions)?;
    text("description", &role.description)
}

impl App {
    /// Adds a role.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_role(&self, role: &Role, actor: &Actor) -> Result<Revision, OrderError> {
        let detail = role.permissions.join(" ");
        let entry = Entry { actor, action: Action::RoleCreate, target: &role.name, detail };
        let adding = async {
            if !is_scope_token(&role.name) {
                return Err(OrderError::Name("name"));
            }
            checked_role(role)?;
            self.store.add_role(role, self.host.seconds()).await?;
            Ok(self.role(&role.name).await?.1)
        };
        self.recorded(entry, adding).await
    }

    /// Who orders it, and whose tokens are cut off when it is not known of whom.
    fn by<'b>(&'b self, actor: &'b Actor) -> (&'b str, &'b str) {
        (actor.as_str(), self.settings.issuer.as_str())
    }

    /// The role of this name.
    ///
    /// # Errors
    /// See [`OrderError`]; [`StoreError::Missing`] when there is none.
    pub async fn role(&self, name: &str) -> Result<(Role, Revision), OrderError> {
        Ok(self.store.role(name).await?.ok_or(StoreError::Missing)?)
    }

    /// Puts another role of the same name in the place of one. If it permits less, the tokens of all who have it are cut off,
    /// and that is published, when this returns.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn change_role(
        &self,
        role: &Role,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<Revision, OrderError> {
        let detail = role.permissions.join(" ");
        let entry = Entry { actor, action: Action::RoleChange, target: &role.name, detail };
        let changing = async {
            let if_version = match condition {
                Condition::Any => None,
                Condition::Versions(_) => {
                    let version = self.role(&role.name).await?.1.version;
                    condition.holds(version)?;
                    Some(version)
                }
            };
            checked_role(role)?;
            let (revision, wished) =
                self.store.change_role(role, if_version, self.by(actor), &*self.host).await?;
            self.feed.publish(&wished).await?;
            Ok(revision)
        };
        self.recorded(entry, changing).await
    }

    /// Changes what a patch names of a role.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn patch_role(
        &self,
        name: &str,
        patch: &RolePatch,
        actor: &Actor,
    ) -> Result<(Role, Revision), OrderError> {
        let RolePatch { permissions, description } = patch;
        let mut said = Vec::new();
        said.extend(permissions.as_ref().map(|names| format!("permissions {}", names.join(" "))));
        said.extend(description.as_ref().map(|_| "description".to_owned()));
        let entry = Entry { actor, action: Action::RoleChange, target: name, detail: said.join("; ") };
        let changing = async {
            let mut tries = 0;
            loop {
                let (known, Revision { version, .. }) = self.role(name).await?;
                let role = Role {
                    permissions: permissions.clone().unwrap_or(known.permissions),
                    description: description.clone().unwrap_or(known.description),
                    name: known.name,
                };
                checked_role(&role)?;
                match self.store.change_role(&role, Some(version), self.by(actor), &*self.host).await {
                    Ok((revision, wished)) => {
                        self.feed.publish(&wished).await?;
                        return Ok((role, revision));
                    }
                    Err(error) if Condition::Any.is_tried_again(&error, tries) => tries += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        self.recorded(entry, changing).await
    }

    /// Deletes a role. The tokens of all who have it are cut off, and that is published, when this returns.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn delete_role(
        &self,
        name: &str,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(), OrderError> {
        let entry = Entry { actor, action: Action::RoleDelete, target: name, detail: String::new() };
        let deleting = async {
            let if_version = match condition {
                Condition::Any => None,
                Condition::Versions(_) => {
                    let version = self.role(name).await?.1.version;
                    condition.holds(version)?;
                    Some(version)
                }
            };
            let wished = self.store.delete_role(name, if_version, self.by(actor), &*self.host).await?;
            Ok(self.feed.publish(&wished).await?)
        };
        self.recorded(entry, deleting).await
    }

    /// Adds a tenant.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_tenant(&self, tenant: &Tenant, actor: &Actor) -> Result<Revision, OrderError> {
        let detail = tenant.name.clone();
        let entry = Entry { actor, action: Action::TenantCreate, target: &tenant.id, detail };
        let adding = async {
            named("id", &tenant.id)?;
            named("name", &tenant.name)?;
            self.store.add_tenant(tenant, self.host.seconds()).await?;
            Ok(self.tenant(&tenant.id).await?.1)
        };
        self.recorded(entry, adding).await
    }

    /// The tenant of this id.
    ///
    /// # Errors
    /// See [`OrderError`]; [`StoreError::Missing`] when there is none.
    pub async fn tenant(&self, id: &str) -> Result<(Tenant, Revision), OrderError> {
        Ok(self.store.tenant(id).await?.ok_or(StoreError::Missing)?)
    }

    /// Changes a tenant. If it is disabled, all its tokens and sessions are cut off, and that is published, when this
    /// returns.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn change_tenant(
        &self,
        id: &str,
        patch: &TenantPatch,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(Tenant, Revision), OrderError> {
        let TenantPatch { name, disabled } = patch;
        let mut said: Vec<String> = name.iter().map(|name| format!("name {name}")).collect();
        said.extend(disabled.map(|disabled| if disabled { "disabled" } else { "enabled" }.to_owned()));
        let entry = Entry { actor, action: Action::TenantChange, target: id, detail: said.join("; ") };
        let changing = async {
            if let Some(name) = name {
                named("name", name)?;
            }
            let mut tries = 0;
            loop {
                let (known, Revision { version, .. }) = self.tenant(id).await?;
                condition.holds(version)?;
                let tenant = Tenant {
                    name: name.clone().unwrap_or(known.name),
                    disabled: disabled.unwrap_or(known.disabled),
                    id: known.id,
                };
                let (actor, host) = (actor.as_str(), &*self.host);
                match self.store.change_tenant(&tenant, Some(version), actor, host).await {
                    Ok((revision, wished)) => {
                        self.feed.publish(&wished).await?;
                        return Ok((tenant, revision));
                    }
                    Err(error) if condition.is_tried_again(&error, tries) => tries += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        self.recorded(entry, changing).await
    }
}
