//! Decides what operators may do to OAuth clients.

use super::{Actor, Condition, Entry, OrderError};
use crate::app::App;
use crate::audit::Action;
use crate::client::{
    Client, ClientAuthentication, ClientFault, ClientKeys, ClientOrder, Grants, NewClient, NewClientSecret,
};
use crate::credential::new_id;
use crate::store::{Revision, StoreError};

/// What shall be other than it is; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct ClientPatch {
    /// What people call it.
    pub name: Option<String>,
    /// The names of its grants.
    pub grants: Option<Vec<String>>,
    /// What its own tokens may be good for.
    pub scopes: Option<Vec<String>>,
    /// What it is, in those tokens.
    pub roles: Option<Vec<String>>,
    /// Which limit applies.
    pub plan: Option<String>,
    /// The customer it belongs to, or that there is none.
    pub tenant: Option<Option<String>>,
    /// Whether it may ask about tokens that are not its own.
    pub may_introspect: Option<bool>,
    /// Whether it gets nothing for now.
    pub disabled: Option<bool>,
    /// Its keys, if it authenticates with such.
    pub jwks: Option<String>,
}

impl ClientPatch {
    fn applied(&self, client: Client) -> Result<Client, ClientFault> {
        let Self { name, grants, scopes, roles, plan, tenant, may_introspect, disabled, jwks } = self;
        let grants = match grants {
            Some(names) => Grants::named(names).ok_or(ClientFault::Grants)?,
            None => client.grants,
        };
        let auth = match (jwks, client.auth) {
            (None, auth) => auth,
            (Some(jwks), ClientAuthentication::PrivateKeyJwt(_)) => {
                ClientAuthentication::PrivateKeyJwt(ClientKeys::from_jwks(jwks)?)
            }
            (Some(_), ClientAuthentication::None | ClientAuthentication::Secret(_)) => {
                return Err(ClientFault::NoKeys);
            }
        };
        Ok(Client {
            name: name.clone().unwrap_or(client.name),
            auth,
            grants,
            scopes: scopes.clone().unwrap_or(client.scopes),
            roles: roles.clone().unwrap_or(client.roles),
            plan: plan.clone().unwrap_or(client.plan),
            tenant: tenant.clone().unwrap_or(client.tenant),
            may_introspect: may_introspect.unwrap_or(client.may_introspect),
            disabled: disabled.unwrap_or(client.disabled),
            id: client.id,
            version: client.version,
        })
    }

    /// What it changes, for the audit log.
    fn said(&self) -> String {
        let Self { name, grants, scopes, roles, plan, tenant, may_introspect, disabled, jwks } = self;
        let mut said = Vec::new();
        said.extend(name.as_ref().map(|name| format!("name {name}")));
        for (what, names) in [("grants", grants), ("scopes", scopes), ("roles", roles)] {
            said.extend(names.as_ref().map(|names| format!("{what} {}", names.join(" "))));
        }
        said.extend(plan.as_ref().map(|plan| format!("plan {plan}")));
        said.extend(tenant.as_ref().map(|tenant| format!("tenant {}", tenant.as_deref().unwrap_or("none"))));
        said.extend(may_introspect.map(|may| format!("may_introspect {may}")));
        said.extend(disabled.map(|disabled| if disabled { "disabled" } else { "enabled" }.to_owned()));
        said.extend(jwks.as_ref().map(|_| "jwks".to_owned()));
        said.join("; ")
    }
}

impl App {
    /// Adds a client. Its secret, if it has one, is shown by the caller, once.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_client(
        &self,
        order: ClientOrder,
        actor: &Actor,
    ) -> Result<(NewClient, Revision), OrderError> {
        let id = match &order.id {
            Some(id) => id.clone(),
            None => new_id("c_", &*self.host)?,
        };
        let order = ClientOrder { id: Some(id.clone()), ..order };
        let entry = Entry { actor, action: Action::ClientCreate, target: &id, detail: order.name.clone() };
        let adding = async {
            let new = order.checked(&self.plans, &*self.host)?;
            self.known_roles(&new.client.roles).await?;
            self.known_tenant(new.client.tenant.as_deref()).await?;
            // Both are `sub` of tokens, and one must not be taken for the other (RFC 9068 section 5).
            if self.store.user(&id).await?.is_some() {
                return Err(StoreError::Exists.into());
            }
            self.store.add_client(&new.client, self.host.seconds()).await?;
            let revision = self.client(&id).await?.1;
            Ok((new, revision))
        };
        self.recorded(entry, adding).await
    }

    /// The client of this id.
    ///
    /// # Errors
    /// See [`OrderError`]; [`StoreError::Missing`] when there is none.
    pub async fn client(&self, id: &str) -> Result<(Client, Revision), OrderError> {
        Ok(self.store.client(id).await?.ok_or(StoreError::Missing)?)
    }

    /// Changes a client. What that takes away is cut off, and published, when this returns.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn change_client(
        &self,
        id: &str,
        patch: &ClientPatch,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(Client, Revision), OrderError> {
        let entry = Entry { actor, action: Action::ClientChange, target: id, detail: patch.said() };
        let changing = async {
            self.known_roles(patch.roles.as_deref().unwrap_or_default()).await?;
            self.known_tenant(patch.tenant.as_ref().and_then(Option::as_deref)).await?;
            let change = |client: Client| patch.applied(client).map(|client| (client, ()));
            let (client, revision, ()) = self.write_client(id, condition, actor, change).await?;
            Ok((client, revision))
        };
        self.recorded(entry, changing).await
    }

    /// Makes one more secret for a client. It is shown by the caller, once.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_client_secret(
        &self,
        id: &str,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(NewClientSecret, Revision), OrderError> {
        let entry = Entry { actor, action: Action::ClientSecret, target: id, detail: "added".to_owned() };
        let adding = async {
            let change = |mut client: Client| {
                let secret = client.add_secret(&*self.host)?;
                Ok((client, secret))
            };
            let (_, revision, secret) = self.write_client(id, condition, actor, change).await?;
            Ok((secret, revision))
        };
        self.recorded(entry, adding).await
    }

    /// Withdraws a secret of a client.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn withdraw_client_secret(
        &self,
        id: &str,
        secret: &str,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(), OrderError> {
        // The id of a secret is no secret, but what somebody takes for one may be.
        let detail = "withdrawn".to_owned();
        let entry = Entry { actor, action: Action::ClientSecret, target: id, detail };
        let withdrawing = async {
            let change = |mut client: Client| {
                client.withdraw_secret(secret)?;
                Ok((client, ()))
            };
            self.write_client(id, condition, actor, change).await.map(|_| ())
        };
        self.recorded(entry, withdrawing).await
    }

    async fn write_client<T>(
        &self,
        id: &str,
        condition: &Condition,
        actor: &Actor,
        change: impl Fn(Client) -> Result<(Client, T), ClientFault>,
    ) -> Result<(Client, Revision, T), OrderError> {
        let mut tries = 0;
        loop {
            let (known, Revision { version, .. }) = self.client(id).await?;
            condition.holds(version)?;
            let (client, more) = change(known)?;
            client.check(&self.plans)?;
            let (actor, host) = (actor.as_str(), &*self.host);
            match self.store.change_client(&client, Some(version), actor, host).await {
                Ok((revision, wished)) => {
                    self.feed.publish(&wished).await?;
                    return Ok((client, revision, more));
                }
                Err(error) if condition.is_tried_again(&error, tries) => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes a client, and cuts off everything that it has.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn delete_client(
        &self,
        id: &str,
        condition: &Condition,
        actor: &Actor,
    ) -> Result<(), OrderError> {
        let entry = Entry { actor, action: Action::ClientDelete, target: id, detail: String::new() };
        let deleting = async {
            let mut tries = 0;
            loop {
                let version = self.client(id).await?.1.version;
                condition.holds(version)?;
                match self.store.delete_client(id, Some(version), actor.as_str(), &*self.host).await {
                    Ok(wished) => return Ok(self.feed.publish(&wished).await?),
                    Err(error) if condition.is_tried_again(&error, tries) => tries += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        self.recorded(entry, deleting).await
    }
}
