//! Decides what operators may do to users.

use super::{Actor, Condition, Entry, OrderError, named, tokens};
use crate::app::App;
use crate::audit::Action;
use crate::credential::new_id;
use crate::password::{NewPassword, Password, PasswordContext};
use crate::store::{EndReason, NewUser, SessionRecord, StoreError, User, UserChange, UserRecord};

/// A user that is wanted.
#[derive(Debug)]
pub struct UserOrder {
    /// By what the user logs in.
    pub username: String,
    /// The password.
    pub password: Password,
    /// Which limit applies; the default one when `None`.
    pub plan: Option<String>,
    /// What the user is.
    pub roles: Vec<String>,
    /// What the user may ask for.
    pub scopes: Vec<String>,
    /// The customer the user belongs to.
    pub tenant: Option<String>,
}

/// What shall be other than it is; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPatch {
    /// Which limit applies.
    pub plan: Option<String>,
    /// What the user is.
    pub roles: Option<Vec<String>>,
    /// What the user may ask for.
    pub scopes: Option<Vec<String>>,
    /// The customer the user belongs to, or that there is none.
    pub tenant: Option<Option<String>>,
    /// Whether logins are refused.
    pub disabled: Option<bool>,
}

impl UserPatch {
    /// The user as it shall be.
    fn applied(&self, user: User) -> User {
        let Self { plan, roles, scopes, tenant, disabled } = self;
        User {
            plan: plan.clone().unwrap_or(user.plan),
            roles: roles.clone().unwrap_or(user.roles),
            scopes: scopes.clone().unwrap_or(user.scopes),
            tenant: tenant.clone().unwrap_or(user.tenant),
            disabled: disabled.unwrap_or(user.disabled),
            ..user
        }
    }

    /// What it changes, for the audit log.
    fn said(&self) -> String {
        let Self { plan, roles, scopes, tenant, disabled } = self;
        let mut said = Vec::new();
        said.extend(plan.as_ref().map(|plan| format!("plan {plan}")));
        said.extend(roles.as_ref().map(|roles| format!("roles {}", roles.join(" "))));
        said.extend(scopes.as_ref().map(|scopes| format!("scopes {}", scopes.join(" "))));
        said.extend(tenant.as_ref().map(|tenant| format!("tenant {}", tenant.as_deref().unwrap_or("none"))));
        said.extend(disabled.map(|disabled| if disabled { "disabled" } else { "enabled" }.to_owned()));
        said.join("; ")
    }
}

impl App {
    /// Adds a user.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_user(&self, order: UserOrder, actor: &Actor) -> Result<UserRecord, OrderError> {
        let id = new_id("u_", &*self.host)?;
        let entry = Entry { actor, action: Action::UserCreate, target: &id, detail: order.username.clone() };
        let adding = async {
            let UserOrder { username, password, plan, roles, scopes, tenant } = order;
            let plan = plan.unwrap_or_else(|| self.plans.default_name().to_owned());
            named("username", &username)?;
            self.known_plan(&plan)?;
            self.known_tenant(tenant.as_deref()).await?;
            self.known_roles(&roles).await?;
            tokens("scopes", &scopes)?;
            let context = PasswordContext { username: &username, issuer: self.settings.issuer.as_str() };
            let password = NewPassword::new(password, &context)?;
            let password_hash = self.passwords.hash(&password).await?;
            let user = User { id: id.clone(), username, plan, roles, scopes, tenant, disabled: false };
            self.store.add_user(&NewUser { user, password_hash }, self.host.seconds()).await?;
            Ok(self.store.user(&id).await?.ok_or(StoreError::Missing)?)
        };
        self.recorded(entry, adding).await
    }

    pub(super) fn known_plan(&self, plan: &str) -> Result<(), OrderError> {
        if self.plans.has(plan) { Ok(()) } else { Err(OrderError::Plan) }
    }

    /// Changes a user. What that takes away is cut off, and published, when this returns.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn change_user(
        &self,
        id: &str,
        patch: &UserPatch,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<UserRecord, OrderError> {
        let entry = Entry { actor, action: Action::UserChange, target: id, detail: patch.said() };
        let changing = async {
            if let Some(plan) = &patch.plan {
                self.known_plan(plan)?;
            }
            self.known_roles(patch.roles.as_deref().unwrap_or_default()).await?;
            tokens("scopes", patch.scopes.as_deref().unwrap_or_default())?;
            self.known_tenant(patch.tenant.as_ref().and_then(Option::as_deref)).await?;
            self.write_user(id, condition, actor, |user| patch.applied(user), None).await
        };
        self.recorded(entry, changing).await
    }

    /// Sets a user's password, which ends every session.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn set_password(
        &self,
        id: &str,
        password: Password,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<UserRecord, OrderError> {
        let entry = Entry { actor, action: Action::PasswordChange, target: id, detail: String::new() };
        let setting = async {
            let known = self.store.user(id).await?.ok_or(StoreError::Missing)?;
            condition.holds(known.version)?;
            let issuer = self.settings.issuer.as_str();
            let context = PasswordContext { username: &known.user.username, issuer };
            let password = NewPassword::new(password, &context)?;
            let hash = self.passwords.hash(&password).await?;
            self.write_user(id, condition, actor, |user| user, Some(&hash)).await
        };
        self.recorded(entry, setting).await
    }

    async fn write_user(
        &self,
        id: &str,
        condition: &Condition,
        actor: &Actor,
        change: impl Fn(User) -> User,
        password_hash: Option<&str>,
    ) -> Result<UserRecord, OrderError> {
        let mut tries = 0;
        loop {
            let known = self.store.user(id).await?.ok_or(StoreError::Missing)?;
            condition.holds(known.version)?;
            let user = change(known.user);
            let if_version = Some(known.version);
            let change = UserChange { user: &user, password_hash, if_version, actor: actor.as_str() };
            match self.store.change_user(&change, &*self.host).await {
                Ok((changed, wished)) => {
                    self.feed.publish(&wished).await?;
                    return Ok(changed);
                }
                Err(error) if condition.is_tried_again(&error, tries) => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes a user, and ends every session.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn delete_user(
        &self,
        id: &str,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(), OrderError> {
        let entry = Entry { actor, action: Action::UserDelete, target: id, detail: String::new() };
        let deleting = async {
            let mut tries = 0;
            loop {
                let known = self.store.user(id).await?.ok_or(StoreError::Missing)?;
                condition.holds(known.version)?;
                let version = Some(known.version);
                match self.store.delete_user(id, version, actor.as_str(), &*self.host).await {
                    Ok((_, wished)) => return Ok(self.feed.publish(&wished).await?),
                    Err(error) if condition.is_tried_again(&error, tries) => tries += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        self.recorded(entry, deleting).await
    }

    /// The user of this id.
    ///
    /// # Errors
    /// See [`OrderError`]; [`StoreError::Missing`] when there is none.
    pub async fn user(&self, id: &str) -> Result<UserRecord, OrderError> {
        Ok(self.store.user(id).await?.ok_or(StoreError::Missing)?)
    }

    /// The user of this name.
    ///
    /// # Errors
    /// See [`OrderError`]; [`StoreError::Missing`] when there is none.
    pub async fn user_named(&self, username: &str) -> Result<UserRecord, OrderError> {
        named("username", username)?;
        Ok(self.store.user_named(username).await?.ok_or(StoreError::Missing)?)
    }

    /// The sessions of a user that are not over.
    ///
    /// # Errors
    /// See [`OrderError`]; [`StoreError::Missing`] when there is no such user.
    pub async fn sessions_of_user(&self, id: &str) -> Result<Vec<SessionRecord>, OrderError> {
        self.user(id).await?;
        Ok(self.store.sessions_of(id, self.host.seconds()).await?)
    }

    /// Ends one session of a user.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn end_user_session(&self, id: &str, session: &str, actor: &Actor) -> Result<(), OrderError> {
        let detail = format!("session {session}");
        let entry = Entry { actor, action: Action::SessionEnd, target: id, detail };
        let ending = async {
            let (reason, host) = (EndReason::Ended, &*self.host);
            let wished = self.store.end_session(id, session, reason, actor.as_str(), host).await?;
            Ok(self.feed.publish(&wished).await?)
        };
        self.recorded(entry, ending).await
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn end_user_sessions(&self, id: &str, actor: &Actor) -> Result<(), OrderError> {
        let entry =
            Entry { actor, action: Action::SessionEnd, target: id, detail: "all sessions".to_owned() };
        let ending = async {
            self.user(id).await?;
            let (reason, host) = (EndReason::Ended, &*self.host);
            let wished = self.store.end_sessions(id, reason, actor.as_str(), host).await?;
            Ok(self.feed.publish(&wished).await?)
        };
        self.recorded(entry, ending).await
    }

    /// Forgets the failed logins of a user.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn unlock_user(&self, id: &str, actor: &Actor) -> Result<(), OrderError> {
        let entry = Entry { actor, action: Action::UserUnlock, target: id, detail: String::new() };
        let unlocking = async {
            let known = self.user(id).await?;
            // Boxed, because what asks Redis is a deep nest of futures.
            Ok(Box::pin(self.throttle.unlock(&known.user.username)).await?)
        };
        self.recorded(entry, unlocking).await
    }
}
