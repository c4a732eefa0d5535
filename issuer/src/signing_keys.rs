//! Decides which keys sign and verify tokens: one signs, several are published, and they follow each other on a schedule.
//!
//! *What comes in:* rows of a database that replicas share. *What goes out:* signatures of the one active key, and the set by
//! which everybody checks them. *What an attacker gains if this is wrong:* every identity there is.

mod files;
mod private;
mod record;
mod rotation;
mod schedule;
mod sealed;

use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use tollgate_shared::id::KeyId;
use tollgate_shared::token::{AccessToken, IssueError, KeySet, KeySetError, TokenSigner, signed_jwt};

use crate::published::entity_tag;

pub use files::{AdoptError, adopted_key, forget_adopted_file, open_encryption_keys};
pub use private::{NewKey, PrivateKey, PrivateKeyError, RsaSize};
pub use record::{EndedLife, KeyRecord, KeyRecordError, KeyRow, KeyRowFault, KeyState};
pub use rotation::Rotation;
pub use schedule::{Moment, PUBLISHED_KEYS_MAX, RECONNECT_SECONDS, Schedule, Step, plan};
pub use sealed::{
    ENCRYPTION_KEY_VARIABLE, ENCRYPTION_KEYS_MAX, EncryptionKeyFault, EncryptionKeyId, EncryptionKeys, Label,
    SealError, ServerSecret,
};

/// The keys as they are at one instant. It is replaced as a whole, so the key that signs is always in the set.
#[derive(Debug)]
pub struct KeyView {
    active: PrivateKey,
    /// The JWK Set that is published.
    pub jwks: String,
    /// Its entity tag, quoted.
    pub jwks_etag: String,
    /// The same set, to verify with.
    pub verifying: KeySet,
}

/// Why records give no view. The one in force stays.
#[derive(Debug, thiserror::Error)]
pub enum KeyViewError {
    /// No key is active.
    #[error("no signing key is active")]
    NoActive,
    /// The private half of the active key cannot be had.
    #[error("signing key {id}: {error}")]
    Private {
        /// Which key.
        id: KeyId,
        /// Why.
        #[source]
        error: KeyRecordError,
    },
    /// The public half of this key is not the one of its name and algorithm.
    #[error("signing key {0}: what is to be published is not its public half")]
    Public(KeyId),
    /// The set is not one that verifiers accept.
    #[error("own key set: {0}")]
    Set(#[from] KeySetError),
}

impl KeyView {
    /// The view that these records give. It is the same for every replica: order, text and tag follow from the records.
    ///
    /// # Errors
    /// See [`KeyViewError`].
    pub fn of(records: &[KeyRecord], keys: &EncryptionKeys) -> Result<Self, KeyViewError> {
        let mut published: Vec<&KeyRecord> = records.iter().filter(|record| record.is_published()).collect();
        // The active one first, for verifiers that look no further.
        published.sort_by(|one, other| place(one).cmp(&place(other)));
        let record = published.first().ok_or(KeyViewError::NoActive)?;
        record.state.active_since().ok_or(KeyViewError::NoActive)?;
        let active = record
            .private_key(keys)
            .map_err(|error| KeyViewError::Private { id: record.id.clone(), error })?;
        let members: Vec<&str> = published.iter().map(|record| record.public_jwk.as_str()).collect();
        let jwks = format!("{{\"keys\":[{}]}}", members.join(","));
        let (verifying, _) = KeySet::from_jwks(jwks.as_bytes())?;
        for record in &published {
            let is_its_own = verifying.find(&record.id).is_some_and(|key| {
                key.verifying().thumbprint() == record.id && key.verifying().algorithm() == record.algorithm
            });
            if !is_its_own || verifying.len() != published.len() {
                return Err(KeyViewError::Public(record.id.clone()));
            }
        }
        let jwks_etag = entity_tag(jwks.as_bytes());
        Ok(Self { active, jwks, jwks_etag, verifying })
    }

    /// The key that signs.
    #[must_use]
    pub fn active(&self) -> &KeyId {
        self.active.key_id()
    }

    /// Signs a JWT of this type with these claims by the active key.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn sign(&self, typ: &'static str, claims: &impl Serialize) -> Result<String, IssueError> {
        signed_jwt(typ, claims, &self.active)
    }
}

/// The active one, then those that wait, then those that retire; the latest first within each.
fn place(record: &KeyRecord) -> (u8, std::cmp::Reverse<u64>, &KeyId) {
    let (group, date) = match record.state {
        KeyState::Active { since, .. } => (0, since),
        KeyState::Prepublished { since } => (1, since),
        KeyState::Retiring { since, .. } => (2, since),
        KeyState::Removed(life) | KeyState::Withdrawn(life) => (3, life.at),
    };
    (group, std::cmp::Reverse(date.0), &record.id)
}

/// The view in force, shared by all requests.
#[derive(Debug)]
pub struct SigningKeys(RwLock<Arc<KeyView>>);

impl SigningKeys {
    /// Keys that begin with this view.
    #[must_use]
    pub fn new(view: KeyView) -> Self {
        Self(RwLock::new(Arc::new(view)))
    }

    /// The view in force. Whoever needs two things of it asks once: the next view may differ.
    #[must_use]
    pub fn view(&self) -> Arc<KeyView> {
        // Nothing that holds the lock can panic, and a view is whole whatever happened to its last holder.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another view in force; signatures that have begun end with the one they began with.
    pub fn replace(&self, view: KeyView) {
        let view = Arc::new(view);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Signs an access token with the active key.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn sign(&self, token: &AccessToken<'_>) -> Result<String, IssueError> {
        token.signed_by(&self.view().active)
    }
}

#[cfg(test)]
mod tests;
