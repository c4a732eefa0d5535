//! Decides for whom an API key speaks at this moment, if for anybody.
//!
//! *What comes in:* from an edge, the public id of a key and the digest of the secret that somebody presented there. *What
//! goes out:* whose key it is and what it is good for, or nothing. *What an attacker gains if this is wrong:* what the
//! owner of a key may do, with a wrong key or with one that is over.
//!
//! An edge keeps the answer for a while. What ends it early comes by the feed: a revoked key as a cut-off of the token of
//! that id, an owner who is no longer in force as one of the subject, client or tenant. A cut-off does not end the key
//! itself: it has the edge ask again.

use tollgate_shared::time::UnixSeconds;

use crate::api_key::{ApiKeyOwner, is_id};
use crate::app::App;
use crate::client::Client;
use crate::credential::SecretDigest;
use crate::store::{ApiKeyRecord, StoreError};

/// For whom a key speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user, or the client itself.
    pub subject: String,
    /// The client, if it is a client's key.
    pub client: Option<String>,
    /// The customer that the owner belongs to.
    pub tenant: Option<String>,
    /// Which limit applies.
    pub plan: String,
    /// What the key is good for: what was given to it and its owner still has.
    pub scopes: Vec<String>,
    /// What the owner is.
    pub roles: Vec<String>,
    /// From when on it is no key any more.
    pub expires_at: Option<UnixSeconds>,
}

impl App {
    /// For whom the key with this public id speaks, if its secret has this digest. `None` is all there is to say of a key
    /// that is unknown, wrong, expired or revoked, or whose owner is not in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn principal(
        &self,
        id: &str,
        presented: &SecretDigest,
    ) -> Result<Option<Principal>, StoreError> {
        // What cannot be an id is not looked for.
        let known = if is_id(id) { self.store.api_key(id).await? } else { None };
        let now = self.host.seconds();
        match known.filter(|key| key.digest.matches(presented) && key.is_in_force(now)) {
            Some(key) => self.principal_of(key).await,
            None => Ok(None),
        }
    }

    async fn principal_of(&self, key: ApiKeyRecord) -> Result<Option<Principal>, StoreError> {
        let ApiKeyRecord { owner, scopes, expires_at, .. } = key;
        let (mut principal, held) = match owner {
            ApiKeyOwner::User(id) => {
                let known = self.store.user(&id).await?.map(|known| known.user);
                let Some(user) = known.filter(|user| !user.disabled) else { return Ok(None) };
                let held = self.scopes_of(&user).await?;
                let (subject, client) = (user.id, None);
                let (tenant, plan, roles) = (user.tenant, user.plan, user.roles);
                (Principal { subject, client, tenant, plan, scopes, roles, expires_at }, held)
            }
            ApiKeyOwner::Client(id) => {
                let known = self.confirmed_client(&id).await?;
                let Some(client) = known.filter(|client| !client.disabled) else { return Ok(None) };
                let held = self.scopes_of_client(&client).await?;
                let Client { tenant, plan, roles, .. } = Client::clone(&client);
                let (subject, client) = (id.clone(), Some(id));
                (Principal { subject, client, tenant, plan, scopes, roles, expires_at }, held)
            }
        };
        if let Some(tenant) = &principal.tenant
            && self.store.tenant(tenant).await?.is_some_and(|(tenant, _)| tenant.disabled)
        {
            return Ok(None);
        }
        // A right that was taken from the owner is taken from the key.
        principal.scopes.retain(|scope| held.contains(scope));
        Ok(Some(principal))
    }
}
