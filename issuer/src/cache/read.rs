//! How requests read clients, roles and tenants.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::app::App;
use crate::client::{Client, client_id};
use crate::store::{StoreError, Tenant};

impl App {
    /// The client of this id, for whoever says to be it. It may be old by as much as the settings of the cache say.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cached_client(&self, id: &str) -> Result<Option<Arc<Client>>, StoreError> {
        // What cannot be an id is not looked for.
        match client_id(id) {
            Some(id) => self.cache.client(&self.store, id.as_str()).await,
            None => Ok(None),
        }
    }

    /// The client of this id as the database has it now: before something is issued to it that outlives the cache.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn confirmed_client(&self, id: &str) -> Result<Option<Arc<Client>>, StoreError> {
        match client_id(id) {
            Some(id) => self.cache.confirmed_client(&self.store, id.as_str()).await,
            None => Ok(None),
        }
    }

    /// What these roles permit together. A role that does not exist permits nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn role_permissions(&self, roles: &[String]) -> Result<BTreeSet<String>, StoreError> {
        let mut permitted = BTreeSet::new();
        for name in roles {
            if let Some(role) = self.cache.role(&self.store, name).await? {
                permitted.extend(role.permissions.iter().cloned());
            }
        }
        Ok(permitted)
    }

    /// The tenant of this id. It may be old by as much as the settings of the cache say.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cached_tenant(&self, id: &str) -> Result<Option<Arc<Tenant>>, StoreError> {
        self.cache.tenant(&self.store, id).await
    }
}
