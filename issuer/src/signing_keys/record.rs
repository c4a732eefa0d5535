//! Decides what is kept of a signing key at each point of its life, and which points follow each other.

use std::fmt;

use tollgate_shared::id::KeyId;
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{Algorithm, TokenSigner};

use super::private::{NewKey, PrivateKey, PrivateKeyError};
use super::sealed::{EncryptionKeys, Label, SealError};
use crate::clock::Host;

/// Where a key is in its life. It is published in the first three states and signs in the second only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Verifiers get to know it.
    Prepublished {
        /// When it was first published.
        since: UnixSeconds,
    },
    /// It signs.
    Active {
        /// When it was first published.
        published_at: UnixSeconds,
        /// When it began to sign.
        since: UnixSeconds,
    },
    /// It signs no more; tokens that it signed are still good.
    Retiring {
        /// When it was first published.
        published_at: UnixSeconds,
        /// When it began to sign.
        active_at: UnixSeconds,
        /// When it stopped.
        since: UnixSeconds,
    },
    /// All its tokens are over.
    Removed(EndedLife),
    /// It is compromised: nothing that it signed is good.
    Withdrawn(EndedLife),
}

/// The dates of a key that is published no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedLife {
    /// When it was first published.
    pub published_at: UnixSeconds,
    /// When it began to sign, if it ever did.
    pub active_at: Option<UnixSeconds>,
    /// When it stopped, if it did before it ended.
    pub retiring_at: Option<UnixSeconds>,
    /// When it ended.
    pub at: UnixSeconds,
}

/// A signing key as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its `kid`.
    pub id: KeyId,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// Where it is in its life.
    pub state: KeyState,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// The longest life that a token signed by it may have been given, in seconds. The setting can change while the tokens
    /// are about.
    pub token_seconds: u64,
    /// Its private half, sealed. It is forgotten with the last use, so a key that has retired cannot be stolen any more.
    pub sealed: Option<Vec<u8>>,
    /// Its public half as it is published.
    pub public_jwk: String,
}

/// A signing key as a database row has it. Dates are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "each is described where it is used: in `KeyRecord` and `KeyState`")]
pub struct KeyRow {
    pub kid: String,
    pub alg: String,
    pub state: String,
    pub created_at: u64,
    pub published_at: u64,
    pub active_at: Option<u64>,
    pub retiring_at: Option<u64>,
    pub ended_at: Option<u64>,
    pub token_seconds: u64,
    pub sealed: Option<Vec<u8>>,
    pub public_jwk: String,
}

/// A row has values that cannot be together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signing_keys: a row does not describe a key")]
pub struct KeyRowFault;

/// Why a record cannot be made, or gives no private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRecordError {
    /// The key itself.
    #[error(transparent)]
    Private(#[from] PrivateKeyError),
    /// Its seal.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It is past the time when it could sign.
    #[error("the private half is forgotten")]
    Forgotten,
    /// The private half is that of another key.
    #[error("the private half is another key's")]
    OtherKey,
}

impl KeyRecord {
    /// A new key, to be published from `now` on.
    ///
    /// # Errors
    /// See [`KeyRecordError`].
    pub fn generate(
        kind: NewKey,
        keys: &EncryptionKeys,
        host: &dyn Host,
        now: UnixSeconds,
    ) -> Result<Self, KeyRecordError> {
        let key = PrivateKey::generate(kind, host)?;
        Self::of(&key, KeyState::Prepublished { since: now }, keys, host, now)
    }

    /// The record of an existing key in this state.
    ///
    /// # Errors
    /// See [`KeyRecordError`].
    pub fn of(
        key: &PrivateKey,
        state: KeyState,
        keys: &EncryptionKeys,
        host: &dyn Host,
        now: UnixSeconds,
    ) -> Result<Self, KeyRecordError> {
        let (id, algorithm) = (key.key_id().clone(), key.algorithm());
        let sealed = keys.seal(Label::SigningKey(id.as_str(), algorithm), &key.to_pkcs8()?, host)?;
        let public_jwk = key.public().public_jwk().to_string();
        let sealed = Some(sealed);
        Ok(Self { id, algorithm, state, created_at: now, token_seconds: 0, sealed, public_jwk })
    }

    /// What its private half is sealed as.
    #[must_use]
    pub fn label(&self) -> Label<'_> {
        Label::SigningKey(self.id.as_str(), self.algorithm)
    }

    /// Its private half.
    ///
    /// # Errors
    /// See [`KeyRecordError`].
    pub fn private_key(&self, keys: &EncryptionKeys) -> Result<PrivateKey, KeyRecordError> {
        let sealed = self.sealed.as_deref().ok_or(KeyRecordError::Forgotten)?;
        let key = PrivateKey::from_pkcs8(self.algorithm, &keys.open(self.label(), sealed)?)?;
        if *key.key_id() == self.id { Ok(key) } else { Err(KeyRecordError::OtherKey) }
    }

    /// The same, sealed under the first of `keys`; `None` when it is already, or has no private half any more.
    ///
    /// # Errors
    /// See [`KeyRecordError`].
    pub fn resealed(&self, keys: &EncryptionKeys, host: &dyn Host) -> Result<Option<Self>, KeyRecordError> {
        let Some(sealed) = &self.sealed else { return Ok(None) };
        let anew = keys.resealed(self.label(), sealed, host)?;
        Ok(anew.map(|sealed| Self { sealed: Some(sealed), ..self.clone() }))
    }

    /// Whether verifiers are told of it.
    #[must_use]
    pub fn is_published(&self) -> bool {
        match self.state {
            KeyState::Prepublished { .. } | KeyState::Active { .. } | KeyState::Retiring { .. } => true,
            KeyState::Removed(_) | KeyState::Withdrawn(_) => false,
        }
    }

    /// From being published to signing. A key in another state stays as it is, here and below.
    pub(super) fn activate(&mut self, now: UnixSeconds, token_seconds: u64) {
        if let KeyState::Prepublished { since } = self.state {
            self.state = KeyState::Active { published_at: since, since: now };
            self.token_seconds = token_seconds;
        }
    }

    /// From signing to being published only.
    pub(super) fn retire(&mut self, now: UnixSeconds) {
        if let KeyState::Active { published_at, since } = self.state {
            // Not before it began, whatever the clock says by now: its tokens count from here.
            self.state = KeyState::Retiring { published_at, active_at: since, since: now.max(since) };
            self.sealed = None;
        }
    }

    /// From being published to being history. A key that signs cannot be removed.
    pub(super) fn remove(&mut self, now: UnixSeconds) {
        if !matches!(self.state, KeyState::Active { .. })
            && let Some(life) = self.ended(now)
        {
            self.state = KeyState::Removed(life);
            self.sealed = None;
        }
    }

    /// From any published state to being compromised.
    pub(super) fn withdraw(&mut self, now: UnixSeconds) {
        if let Some(life) = self.ended(now) {
            self.state = KeyState::Withdrawn(life);
            self.sealed = None;
        }
    }

    fn ended(&self, at: UnixSeconds) -> Option<EndedLife> {
        match self.state {
            KeyState::Prepublished { since } => {
                Some(EndedLife { published_at: since, active_at: None, retiring_at: None, at })
            }
            KeyState::Active { published_at, since } => {
                Some(EndedLife { published_at, active_at: Some(since), retiring_at: None, at })
            }
            KeyState::Retiring { published_at, active_at, since } => {
                Some(EndedLife { published_at, active_at: Some(active_at), retiring_at: Some(since), at })
            }
            KeyState::Removed(_) | KeyState::Withdrawn(_) => None,
        }
    }
}

impl KeyState {
    /// Its name in the database.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepublished { .. } => "prepublished",
            Self::Active { .. } => "active",
            Self::Retiring { .. } => "retiring",
            Self::Removed(_) => "removed",
            Self::Withdrawn(_) => "withdrawn",
        }
    }

    /// Since when it waits for its turn, if it does.
    #[must_use]
    pub fn waiting_since(&self) -> Option<UnixSeconds> {
        if let Self::Prepublished { since } = self { Some(*since) } else { None }
    }

    /// Since when it signs, if it does.
    #[must_use]
    pub fn active_since(&self) -> Option<UnixSeconds> {
        if let Self::Active { since, .. } = self { Some(*since) } else { None }
    }

    /// Since when it is only published, if it is.
    #[must_use]
    pub fn retiring_since(&self) -> Option<UnixSeconds> {
        if let Self::Retiring { since, .. } = self { Some(*since) } else { None }
    }
}

impl From<&KeyRecord> for KeyRow {
    fn from(record: &KeyRecord) -> Self {
        let KeyRecord { id, algorithm, state, created_at, token_seconds, sealed, public_jwk } = record;
        let (published_at, active_at, retiring_at, ended_at) = match *state {
            KeyState::Prepublished { since } => (since, None, None, None),
            KeyState::Active { published_at, since } => (published_at, Some(since), None, None),
            KeyState::Retiring { published_at, active_at, since } => {
                (published_at, Some(active_at), Some(since), None)
            }
            KeyState::Removed(life) | KeyState::Withdrawn(life) => {
                (life.published_at, life.active_at, life.retiring_at, Some(life.at))
            }
        };
        let seconds = |date: Option<UnixSeconds>| date.map(|date| date.0);
        Self {
            kid: id.as_str().to_owned(),
            alg: algorithm.name().to_owned(),
            state: state.name().to_owned(),
            created_at: created_at.0,
            published_at: published_at.0,
            active_at: seconds(active_at),
            retiring_at: seconds(retiring_at),
            ended_at: seconds(ended_at),
            token_seconds: *token_seconds,
            sealed: sealed.clone(),
            public_jwk: public_jwk.clone(),
        }
    }
}

impl TryFrom<KeyRow> for KeyRecord {
    type Error = KeyRowFault;

    fn try_from(row: KeyRow) -> Result<Self, KeyRowFault> {
        let KeyRow { kid, alg, state, created_at, published_at, active_at, retiring_at, ended_at, .. } = row;
        let published_at = UnixSeconds(published_at);
        let dates = [active_at, retiring_at, ended_at].map(|date| date.map(UnixSeconds));
        let state = match (state.as_str(), dates) {
            ("prepublished", [None, None, None]) => KeyState::Prepublished { since: published_at },
            ("active", [Some(since), None, None]) => KeyState::Active { published_at, since },
            ("retiring", [Some(active_at), Some(since), None]) => {
                KeyState::Retiring { published_at, active_at, since }
            }
            ("removed", [active_at, retiring_at, Some(at)]) => {
                KeyState::Removed(EndedLife { published_at, active_at, retiring_at, at })
            }
            ("withdrawn", [active_at, retiring_at, Some(at)]) => {
                KeyState::Withdrawn(EndedLife { published_at, active_at, retiring_at, at })
            }
            _ => return Err(KeyRowFault),
        };
        Ok(Self {
            id: KeyId::new(&kid).ok_or(KeyRowFault)?,
            algorithm: Algorithm::of(&alg).ok_or(KeyRowFault)?,
            state,
            created_at: UnixSeconds(created_at),
            token_seconds: row.token_seconds,
            sealed: row.sealed,
            public_jwk: row.public_jwk,
        })
    }
}

// What is sealed is no secret to who has not the key, but it has no place in a log.
impl fmt::Debug for KeyRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeyRecord")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KeyRow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeyRow")
            .field("kid", &self.kid)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
