//! Decides who gets an API key, and what it is good for.

use tollgate_shared::time::UnixSeconds;

use super::{Actor, Entry, OrderError, named, tokens};
use crate::api_key::{ApiKeyOwner, LIFE_SECONDS_MAX, NewApiKey, is_id};
use crate::app::App;
use crate::audit::Action;
use crate::store::{AddedApiKey, ApiKeyRecord, StoreError};

/// An API key that is wanted.
#[derive(Debug, Clone)]
pub struct ApiKeyOrder {
    /// What people call it.
    pub name: String,
    /// Whose it is to be.
    pub owner: ApiKeyOwner,
    /// What it is to be good for: at most what its owner may.
    pub scopes: Vec<String>,
    /// From when on it is no key any more, if ever.
    pub expires_at: Option<UnixSeconds>,
}

impl App {
    /// Makes an API key. It is shown by the caller, once.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_api_key(
        &self,
        order: ApiKeyOrder,
        actor: &Actor,
    ) -> Result<(NewApiKey, ApiKeyRecord), OrderError> {
        let new = NewApiKey::generate(&*self.host)?;
        let ApiKeyOrder { name, owner, mut scopes, expires_at } = order;
        let detail = format!("{} {}; scopes {}", owner.kind(), owner.id(), scopes.join(" "));
        let entry = Entry { actor, action: Action::ApiKeyCreate, target: &new.id, detail };
        let adding = async {
            let now = self.host.seconds();
            named("name", &name)?;
            tokens("scopes", &scopes)?;
            let ends = |end: UnixSeconds| now < end && end <= now.plus(LIFE_SECONDS_MAX);
            if !expires_at.is_none_or(ends) {
                return Err(OrderError::ApiKeyEnd);
            }
            let held = self.scopes_held(&owner).await?;
            if !scopes.iter().all(|scope| held.contains(scope)) {
                return Err(OrderError::NotHeld);
            }
            scopes.sort_unstable();
            scopes.dedup();
            let (id, digest) = (new.id.clone(), new.digest);
            let key = ApiKeyRecord {
                id,
                digest,
                owner,
                name,
                scopes,
                created_at: now,
                expires_at,
                revoked_at: None,
            };
            match self.store.add_api_key(&key, now).await? {
                AddedApiKey::Added => Ok(key),
                AddedApiKey::TooMany => Err(OrderError::ApiKeys),
                AddedApiKey::NoOwner => Err(OrderError::Unknown(key.owner.kind())),
            }
        };
        let key = self.recorded(entry, adding).await?;
        Ok((new, key))
    }

    /// What the owner of a key may at this moment.
    async fn scopes_held(&self, owner: &ApiKeyOwner) -> Result<Vec<String>, OrderError> {
        let unknown = || OrderError::Unknown(owner.kind());
        // What nothing can be called is not looked for.
        named(owner.kind(), owner.id())?;
        Ok(match owner {
            ApiKeyOwner::User(id) => {
                let known = self.store.user(id).await?.ok_or_else(unknown)?;
                self.scopes_of(&known.user).await?
            }
            ApiKeyOwner::Client(id) => {
                let client = self.confirmed_client(id).await?.ok_or_else(unknown)?;
                self.scopes_of_client(&client).await?
            }
        })
    }

    /// The API key with this public id, also when it is over.
    ///
    /// # Errors
    /// See [`OrderError`]; [`StoreError::Missing`] when there is none.
    pub async fn api_key(&self, id: &str) -> Result<ApiKeyRecord, OrderError> {
        let known = if is_id(id) { self.store.api_key(id).await? } else { None };
        Ok(known.ok_or(StoreError::Missing)?)
    }

    /// Revokes an API key. When this returns, edges are told of it.
    ///
    /// # Errors
    /// See [`OrderError`]; [`StoreError::Missing`] when there is none.
    pub async fn revoke_api_key(&self, id: &str, actor: &Actor) -> Result<ApiKeyRecord, OrderError> {
        // Whoever takes the key itself for its id shall not find it in the log.
        let target = if is_id(id) { id } else { "unknown" };
        let entry = Entry { actor, action: Action::ApiKeyRevoke, target, detail: String::new() };
        let revoking = async {
            if !is_id(id) {
                return Err(StoreError::Missing.into());
            }
            let (key, wished) = self.store.revoke_api_key(id, actor.as_str(), &*self.host).await?;
            self.feed.publish(&wished).await?;
            Ok(key)
        };
        self.recorded(entry, revoking).await
    }
}
