//! Decides what may be kept apart from the database, and how it is written where replicas share it.
//!
//! Passwords, sessions, refresh tokens, cut-offs, key material and the credentials of operators and edges are not here: each
//! of them decides a refusal, and is read where it was committed. Names of users are not here either: a name that is known
//! would be answered sooner than one that is not, and that tells who has an account.

use serde::{Deserialize, Serialize};
use tollgate_shared::time::UnixSeconds;

use crate::client::{Client, Grants, client_id};
use crate::store::{ClientAuthText, FactKind, Revision, Role, Store, StoreError, Tenant};

/// Something that is kept, with the revision it is of. Cloning shares it.
#[derive(Debug)]
pub(super) struct Known<T> {
    pub(super) value: std::sync::Arc<T>,
    pub(super) revision: Revision,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self { value: std::sync::Arc::clone(&self.value), revision: self.revision }
    }
}

/// What is read often and changes rarely.
pub(super) trait Fact: Sized + std::fmt::Debug + Send + Sync + 'static {
    /// Which kind it is.
    const KIND: FactKind;

    /// It as replicas share it. There is no secret in it, only digests; it is sealed all the same.
    fn to_wire(&self, revision: Revision) -> Option<Vec<u8>>;

    /// It as another replica wrote it; `None` when it is of a version that wrote otherwise.
    fn from_wire(bytes: &[u8]) -> Option<(Self, Revision)>;

    /// It as the database has it.
    fn read(
        store: &Store,
        id: &str,
    ) -> impl Future<Output = Result<Option<(Self, Revision)>, StoreError>> + Send;
}

#[derive(Serialize, Deserialize)]
struct WireRevision {
    version: u64,
    created_at: u64,
    updated_at: u64,
}

impl From<Revision> for WireRevision {
    fn from(revision: Revision) -> Self {
        let Revision { version, created_at, updated_at } = revision;
        Self { version, created_at: created_at.0, updated_at: updated_at.0 }
    }
}

impl From<WireRevision> for Revision {
    fn from(wire: WireRevision) -> Self {
        let WireRevision { version, created_at, updated_at } = wire;
        Self { version, created_at: UnixSeconds(created_at), updated_at: UnixSeconds(updated_at) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireClient {
    id: String,
    name: String,
    auth: String,
    grants: Vec<String>,
    scopes: Vec<String>,
    roles: Vec<String>,
    plan: String,
    tenant: Option<String>,
    may_introspect: bool,
    disabled: bool,
    revision: WireRevision,
}

impl Fact for Client {
    const KIND: FactKind = FactKind::Client;

    fn to_wire(&self, revision: Revision) -> Option<Vec<u8>> {
        let Self {
            id,
            name,
            auth,
            grants,
            scopes,
            roles,
            plan,
            tenant,
            may_introspect,
            disabled,
            version: _,
        } = self;
        let wire = WireClient {
            id: id.as_str().to_owned(),
            name: name.clone(),
            auth: ClientAuthText::of(auth).0,
            grants: grants.iter().map(|grant| grant.name().to_owned()).collect(),
            scopes: scopes.clone(),
            roles: roles.clone(),
            plan: plan.clone(),
            tenant: tenant.clone(),
            may_introspect: *may_introspect,
            disabled: *disabled,
            revision: revision.into(),
        };
        serde_json::to_vec(&wire).ok()
    }

    fn from_wire(bytes: &[u8]) -> Option<(Self, Revision)> {
        let WireClient {
            id,
            name,
            auth,
            grants,
            scopes,
            roles,
            plan,
            tenant,
            may_introspect,
            disabled,
            revision,
        } = serde_json::from_slice(bytes).ok()?;
        let revision = Revision::from(revision);
        let client = Self {
            id: client_id(&id)?,
            name,
            auth: ClientAuthText(auth).parsed()?,
            grants: Grants::named(&grants)?,
            scopes,
            roles,
            plan,
            tenant,
            may_introspect,
            disabled,
            version: revision.version,
        };
        Some((client, revision))
    }

    async fn read(store: &Store, id: &str) -> Result<Option<(Self, Revision)>, StoreError> {
        store.client(id).await
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireRole {
    name: String,
    permissions: Vec<String>,
    description: String,
    revision: WireRevision,
}

impl Fact for Role {
    const KIND: FactKind = FactKind::Role;

    fn to_wire(&self, revision: Revision) -> Option<Vec<u8>> {
        let Self { name, permissions, description } = self.clone();
        serde_json::to_vec(&WireRole { name, permissions, description, revision: revision.into() }).ok()
    }

    fn from_wire(bytes: &[u8]) -> Option<(Self, Revision)> {
        let WireRole { name, permissions, description, revision } = serde_json::from_slice(bytes).ok()?;
        Some((Self { name, permissions, description }, revision.into()))
    }

    async fn read(store: &Store, id: &str) -> Result<Option<(Self, Revision)>, StoreError> {
        store.role(id).await
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTenant {
    id: String,
    name: String,
    disabled: bool,
    revision: WireRevision,
}

impl Fact for Tenant {
    const KIND: FactKind = FactKind::Tenant;

    fn to_wire(&self, revision: Revision) -> Option<Vec<u8>> {
        let Self { id, name, disabled } = self.clone();
        serde_json::to_vec(&WireTenant { id, name, disabled, revision: revision.into() }).ok()
    }

    fn from_wire(bytes: &[u8]) -> Option<(Self, Revision)> {
        let WireTenant { id, name, disabled, revision } = serde_json::from_slice(bytes).ok()?;
        Some((Self { id, name, disabled }, revision.into()))
    }

    async fn read(store: &Store, id: &str) -> Result<Option<(Self, Revision)>, StoreError> {
        store.tenant(id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientAuthentication;
    use crate::clock::SystemHost;

    fn revision() -> Revision {
        Revision { version: 7, created_at: UnixSeconds(5), updated_at: UnixSeconds(6) }
    }

    #[test]
    fn a_client_comes_back_as_it_was_and_its_secret_still_fits() {
        let mut client = Client::first_party("free").unwrap();
        client.version = 7;
        client.tenant = Some("acme".to_owned());
        client.scopes = vec!["read".to_owned()];
        client.auth = ClientAuthentication::Secret(Vec::new());
        let secret = client.add_secret(&SystemHost::new()).unwrap();
        let bytes = client.to_wire(revision()).unwrap();
        let (back, revised) = Client::from_wire(&bytes).unwrap();
        assert_eq!(revised, revision());
        assert_eq!(format!("{back:?}"), format!("{client:?}"));
        let ClientAuthentication::Secret(secrets) = &back.auth else { panic!("{:?}", back.auth) };
        assert_eq!(secrets[0].digest.as_bytes(), secret.kept.digest.as_bytes());
        assert!(Client::from_wire(b"{}").is_none());
        assert!(Client::from_wire(&bytes[1..]).is_none());
    }

    #[test]
    fn roles_and_tenants_come_back_as_they_were() {
        let role =
            Role { name: "admin".to_owned(), permissions: vec!["a".to_owned()], description: "d".to_owned() };
        assert_eq!(Role::from_wire(&role.to_wire(revision()).unwrap()).unwrap(), (role, revision()));
        let tenant = Tenant { id: "t".to_owned(), name: "T".to_owned(), disabled: true };
        assert_eq!(Tenant::from_wire(&tenant.to_wire(revision()).unwrap()).unwrap(), (tenant, revision()));
    }
}
