//! Decides what an operator's order means: the same rules for the API and for the command line, and for both an entry in
//! the audit log before anybody is told that it was done.

mod api_key;
mod client;
mod credential;
mod import;
mod key;
mod revocation;
mod rights;
mod secret;
mod shard;
mod user;

use std::collections::BTreeSet;
use std::net::IpAddr;

use tollgate_shared::id::ID_BYTES_MAX;

use crate::api_key::API_KEYS_MAX;
use crate::app::App;
use crate::audit::{Action, AuditEvent, AuditOutcome};
use crate::client::ClientFault;
use crate::clock::EntropyError;
use crate::keyring::KeyringError;
use crate::oauth::scope::{SCOPES_MAX, is_scope_token};
use crate::password::{PasswordError, PasswordRefused};
use crate::permission::Permissions;
use crate::store::StoreError;
use crate::throttle::CounterError;

pub use api_key::ApiKeyOrder;
pub use client::ClientPatch;
pub use import::{ImportMode, ImportReport};
pub use revocation::RevocationWords;
pub use rights::{RolePatch, TenantPatch};
pub use shard::ShardSummary;
pub use user::{UserOrder, UserPatch};

/// The longest reason or description, in bytes.
pub const REASON_BYTES_MAX: usize = 1000;
/// How often a change that names no version is tried again when somebody else changed the same meanwhile.
const TRIES_MAX: u32 = 8;

/// Who does something, from where, and what that one may order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    name: String,
    address: Option<IpAddr>,
    permissions: Permissions,
}

impl Actor {
    /// The operator of this name, through the API.
    #[must_use]
    pub fn operator(name: &str, permissions: Permissions) -> Self {
        Self { permissions, ..Self::named(format!("operator {name}")) }
    }

    /// The user of this id.
    #[must_use]
    pub fn user(id: &str) -> Self {
        Self::named(format!("user {id}"))
    }

    /// The client of this id.
    #[must_use]
    pub fn client(id: &str) -> Self {
        Self::named(format!("client {id}"))
    }

    /// The edge of this id.
    #[must_use]
    pub fn edge(id: &str) -> Self {
        Self::named(format!("edge {id}"))
    }

    /// Whoever may run commands on the machine.
    #[must_use]
    pub fn command_line() -> Self {
        Self { permissions: Permissions::Everything, ..Self::named("command line".to_owned()) }
    }

    /// Somebody who may order nothing.
    fn named(name: String) -> Self {
        Self { name, address: None, permissions: Permissions::Only(BTreeSet::new()) }
    }

    /// The same, from there.
    #[must_use]
    pub fn at(self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self }
    }

    /// The name in the audit log and the feed's log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// What the audit log says when this was done.
    #[must_use]
    pub fn event(&self, action: Action, target: &str) -> AuditEvent {
        AuditEvent::done(&self.name, action, target).from_address(self.address)
    }
}

/// Which version a change is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Whichever there is.
    Any,
    /// One of these.
    Versions(Vec<u64>),
}

impl Condition {
    /// Whether this version is meant.
    fn holds(&self, version: u64) -> Result<(), OrderError> {
        match self {
            Self::Any => Ok(()),
            Self::Versions(versions) if versions.contains(&version) => Ok(()),
            Self::Versions(_) => Err(StoreError::Changed.into()),
        }
    }

    /// Whether a change that somebody else came before is to be made on top of that.
    fn is_tried_again(&self, error: &StoreError, tries: u32) -> bool {
        *self == Self::Any && matches!(error, StoreError::Changed) && tries < TRIES_MAX
    }
}

/// What is written down of an order.
#[derive(Debug, Clone)]
struct Entry<'e> {
    actor: &'e Actor,
    action: Action,
    target: &'e str,
    detail: String,
}

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// A name is empty, too long, or has characters that it may not have.
    #[error("{0}: is empty, too long, or has characters that it may not have")]
    Name(&'static str),
    /// There are too many roles or scopes.
    #[error("{0}: more than {SCOPES_MAX}")]
    TooMany(&'static str),
    /// A role or tenant is named that there is not.
    #[error("{0}: there is none of this name")]
    Unknown(&'static str),
    /// A permission of an operator is named that there is not.
    #[error("permission: there is none of this name")]
    Permission,
    /// The other operator may do what the one who orders may not.
    #[error("permissions: more than those of who orders it")]
    MoreThanOwn,
    /// There is no such plan.
    #[error("plan: there is none of this name")]
    Plan,
    /// There is no such dimension.
    #[error("dimension: must be token, session, subject, client, tenant, key or issuer")]
    Dimension,
    /// The date of a cut-off lies ahead, or the dimension has no dates.
    #[error("issued_before: must not lie ahead, and goes with subject, client, tenant and issuer only")]
    IssuedBefore,
    /// A key of ours is withdrawn, and not only revoked.
    #[error("value: is a signing key of this issuer; withdraw it instead")]
    OwnKey,
    /// What is to be revoked is named by a secret, which everybody would see who may read the list.
    #[error("value: looks like a secret; revoke it by its id, or at /oauth2/revoke")]
    Secret,
    /// A scope is not among those of the owner.
    #[error("scopes: one of them is none of the owner's")]
    NotHeld,
    /// The end of an API key is past, or too far ahead.
    #[error("expires_at: must lie ahead, and by ten years at most")]
    ApiKeyEnd,
    /// The owner has as many API keys as there may be.
    #[error("api keys: the owner has {API_KEYS_MAX} already")]
    ApiKeys,
    /// The password may not be set.
    #[error(transparent)]
    Refused(#[from] PasswordRefused),
    /// The password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The client cannot be so.
    #[error(transparent)]
    Client(#[from] ClientFault),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyringError),
    /// The counters of login attempts.
    #[error(transparent)]
    Counters(#[from] CounterError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl OrderError {
    /// Whose fault it is.
    fn outcome(&self) -> AuditOutcome {
        match self {
            Self::Name(_)
            | Self::TooMany(_)
            | Self::Unknown(_)
            | Self::Permission
            | Self::MoreThanOwn
            | Self::Plan
            | Self::Dimension
            | Self::IssuedBefore
            | Self::OwnKey
            | Self::Secret
            | Self::NotHeld
            | Self::ApiKeyEnd
            | Self::ApiKeys
            | Self::Refused(_)
            | Self::Keys(KeyringError::Missing)
            | Self::Store(StoreError::Exists | StoreError::Missing | StoreError::Changed) => {
                AuditOutcome::Refused
            }
            Self::Client(fault) if !matches!(fault, ClientFault::Entropy(_)) => AuditOutcome::Refused,
            Self::Client(_)
            | Self::Password(_)
            | Self::Keys(_)
            | Self::Counters(_)
            | Self::Store(_)
            | Self::Entropy(_) => AuditOutcome::Failed,
        }
    }
}

impl App {
    /// Carries out an order and writes down how that ended, before it is told to anybody.
    async fn recorded<T>(
        &self,
        entry: Entry<'_>,
        order: impl Future<Output = Result<T, OrderError>>,
    ) -> Result<T, OrderError> {
        let Entry { actor, action, target, detail } = entry;
        let result = order.await;
        let event = actor.event(action, target);
        let event = match &result {
            Ok(_) => event.saying(&detail),
            Err(error) => {
                let outcome = error.outcome();
                // What failed is in the log of the process; it may name databases.
                let why = if outcome == AuditOutcome::Refused { error.to_string() } else { String::new() };
                event.ended(outcome).saying(&why)
            }
        };
        match (self.store.add_audit(&[event], &*self.host).await, result) {
            (Ok(()), result) => result,
            (Err(error), Ok(_)) => Err(error.into()),
            (Err(_), Err(error)) => Err(error),
        }
    }

    /// Checks that there are these roles.
    async fn known_roles(&self, roles: &[String]) -> Result<(), OrderError> {
        tokens("roles", roles)?;
        for role in roles {
            if self.store.role(role).await?.is_none() {
                return Err(OrderError::Unknown("roles"));
            }
        }
        Ok(())
    }

    /// Checks that there is this tenant.
    async fn known_tenant(&self, tenant: Option<&str>) -> Result<(), OrderError> {
        let Some(tenant) = tenant else { return Ok(()) };
        named("tenant", tenant)?;
        let known = self.store.tenant(tenant).await?;
        known.map(|_| ()).ok_or(OrderError::Unknown("tenant"))
    }
}

/// Checks a text that people read: at most [`REASON_BYTES_MAX`] bytes without control characters.
fn text(what: &'static str, text: &str) -> Result<(), OrderError> {
    let fits = text.len() <= REASON_BYTES_MAX && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(OrderError::Name(what)) }
}

/// Checks a name: 1 to 255 bytes without control characters.
pub(crate) fn named(what: &'static str, name: &str) -> Result<(), OrderError> {
    let fits = (1..=ID_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(OrderError::Name(what)) }
}

/// Checks roles or scopes: both are of the characters that scopes may have.
pub(crate) fn tokens(what: &'static str, names: &[String]) -> Result<(), OrderError> {
    if names.len() > SCOPES_MAX {
        return Err(OrderError::TooMany(what));
    }
    if names.iter().all(|name| is_scope_token(name)) { Ok(()) } else { Err(OrderError::Name(what)) }
}
