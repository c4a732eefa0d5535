//! Decides what an OAuth client may be: how it proves who it is, which grants it may use, and what its own tokens say.
//!
//! *What comes in:* an operator's order. *What goes out:* a [`Client`] whose every member was checked, and whose grants fit
//! the way it authenticates. *What an attacker gains if this is wrong:* tokens for a client that proves nothing.

mod authentication;
mod order;

use tollgate_shared::id::{ClientId, ID_BYTES_MAX};
use tollgate_shared::token::{KeyFault, KeySetError};

use crate::clock::{EntropyError, Host};
use crate::oauth::scope::{SCOPES_MAX, is_scope_token};
use crate::quota::PlanBook;

pub(crate) use authentication::SECRET_PREFIX;
pub use authentication::{
    CLIENT_KEYS_MAX, ClientAuthentication, ClientKeys, ClientSecret, JWKS_BYTES_MAX, NewClientSecret,
    SECRETS_MAX,
};
pub use order::{AuthenticationOrder, ClientOrder, NewClient};

/// The client that a login is for when it names none.
pub const FIRST_PARTY: &str = "first-party";

/// A program that gets tokens.
#[derive(Debug, Clone)]
pub struct Client {
    /// By what it is known.
    pub id: ClientId,
    /// What people call it.
    pub name: String,
    /// How it proves who it is.
    pub auth: ClientAuthentication,
    /// How it may get tokens.
    pub grants: Grants,
    /// What the tokens that it has for itself may be good for.
    pub scopes: Vec<String>,
    /// What it is, in those tokens.
    pub roles: Vec<String>,
    /// Which limit applies to those tokens.
    pub plan: String,
    /// The customer it belongs to.
    pub tenant: Option<String>,
    /// Whether it may ask about tokens that are not its own.
    pub may_introspect: bool,
    /// Whether it gets nothing for now.
    pub disabled: bool,
    /// Counted by the store, one up with each change.
    pub version: u64,
}

/// A way to get tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grant {
    /// A person's name and password at `/v1/login`.
    Login,
    /// A refresh token that came of a login (RFC 6749 section 6).
    RefreshToken,
    /// What the client itself may (RFC 6749 section 4.4).
    ClientCredentials,
}

/// Which grants a client may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grants {
    login: bool,
    refresh_token: bool,
    client_credentials: bool,
}

/// Why a client cannot be as ordered. The text names the member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    /// An id that could not stand in a header, a form or a log as it is.
    #[error(
        "id: must be 1 to {ID_BYTES_MAX} letters, digits, dots, hyphens, underscores or tildes, and not begin with u_"
    )]
    Id,
    /// A name that is empty, too long, or has control characters.
    #[error("{0}: must be 1 to {ID_BYTES_MAX} bytes long, without control characters")]
    Name(&'static str),
    /// A scope or role of characters that none has.
    #[error("{0}: one has characters that it may not have, or is too long")]
    Token(&'static str),
    /// Too many of them.
    #[error("{0}: more than {SCOPES_MAX}")]
    TooMany(&'static str),
    /// No such plan.
    #[error("plan: there is none of this name")]
    Plan,
    /// No grant, or one that there is not.
    #[error("grants: must be one or more of login, refresh_token and client_credentials")]
    Grants,
    /// Refresh tokens come of logins only (RFC 6749 section 4.4.3).
    #[error("grants: refresh_token needs login")]
    RefreshWithoutLogin,
    /// RFC 6749 section 4.4: only confidential clients may.
    #[error("grants: client_credentials needs a client that authenticates")]
    PublicClientCredentials,
    /// Who asks about tokens must have proved who it is (RFC 7662 section 2.1).
    #[error("may_introspect: needs a client that authenticates")]
    PublicIntrospection,
    /// The key set is too long.
    #[error("jwks: more than {JWKS_BYTES_MAX} bytes, or more than {CLIENT_KEYS_MAX} keys")]
    JwksSize,
    /// The key set is none.
    #[error(transparent)]
    Jwks(#[from] KeySetError),
    /// One of its keys could not be used, and its owner would wonder why.
    #[error("jwks.keys[{place}]: {fault}")]
    JwksKey {
        /// Which.
        place: usize,
        /// Why.
        fault: KeyFault,
    },
    /// The client has no secrets.
    #[error("auth: the client does not authenticate with a secret")]
    NoSecrets,
    /// The client has no keys.
    #[error("jwks: the client does not authenticate with keys")]
    NoKeys,
    /// It has as many as it may.
    #[error("secrets: more than {SECRETS_MAX}; withdraw one first")]
    TooManySecrets,
    /// It would have none left.
    #[error("secrets: the last one cannot be withdrawn; disable the client instead")]
    LastSecret,
    /// There is no such secret.
    #[error("secrets: there is none of this id")]
    UnknownSecret,
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl Grant {
    const ALL: [Self; 3] = [Self::Login, Self::RefreshToken, Self::ClientCredentials];

    /// The grant that is called `name`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant| grant.name() == name)
    }

    /// Its name, which is OAuth's where OAuth has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
        }
    }
}

impl Grants {
    /// The set of these.
    #[must_use]
    pub fn of(grants: &[Grant]) -> Self {
        Self {
            login: grants.contains(&Grant::Login),
            refresh_token: grants.contains(&Grant::RefreshToken),
            client_credentials: grants.contains(&Grant::ClientCredentials),
        }
    }

    /// The set with these names; `None` when one of them is no grant.
    #[must_use]
    pub fn named(names: &[impl AsRef<str>]) -> Option<Self> {
        let grants: Option<Vec<Grant>> = names.iter().map(|name| Grant::of(name.as_ref())).collect();
        grants.map(|grants| Self::of(&grants))
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn has(self, grant: Grant) -> bool {
        match grant {
            Grant::Login => self.login,
            Grant::RefreshToken => self.refresh_token,
            Grant::ClientCredentials => self.client_credentials,
        }
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Grant> {
        Grant::ALL.into_iter().filter(move |grant| self.has(*grant))
    }
}

impl Client {
    /// Whether people can log in to it.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        !self.disabled && self.grants.has(Grant::Login)
    }

    /// The client that is there from the beginning: public, for logins of people.
    #[must_use]
    pub fn first_party(plan: &str) -> Option<Self> {
        Some(Self {
            id: ClientId::new(FIRST_PARTY)?,
            name: "First party".to_owned(),
            auth: ClientAuthentication::None,
            grants: Grants::of(&[Grant::Login, Grant::RefreshToken]),
            scopes: Vec::new(),
            roles: Vec::new(),
            plan: plan.to_owned(),
            tenant: None,
            may_introspect: false,
            disabled: false,
            version: 1,
        })
    }

    /// Checks that the members are in bounds and fit each other. Who changes one checks the whole again.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn check(&self, plans: &PlanBook) -> Result<(), ClientFault> {
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
            disabled: _,
            version: _,
        } = self;
        client_id(id.as_str()).ok_or(ClientFault::Id)?;
        named("name", name)?;
        tenant.as_deref().map_or(Ok(()), |tenant| named("tenant", tenant))?;
        if !plans.has(plan) {
            return Err(ClientFault::Plan);
        }
        match auth {
            ClientAuthentication::Secret(secrets) if secrets.is_empty() => {
                return Err(ClientFault::LastSecret);
            }
            ClientAuthentication::Secret(secrets) if secrets.len() > SECRETS_MAX => {
                return Err(ClientFault::TooManySecrets);
            }
            ClientAuthentication::None
            | ClientAuthentication::Secret(_)
            | ClientAuthentication::PrivateKeyJwt(_) => {}
        }
        check_grants(*grants, auth)?;
        if *may_introspect && !auth.is_confidential() {
            return Err(ClientFault::PublicIntrospection);
        }
        for (what, names) in [("scopes", scopes), ("roles", roles)] {
            if names.len() > SCOPES_MAX {
                return Err(ClientFault::TooMany(what));
            }
            if !names.iter().all(|name| is_scope_token(name)) {
                return Err(ClientFault::Token(what));
            }
        }
        Ok(())
    }

    /// Adds a secret beside those that the client has.
    ///
    /// # Errors
    /// [`ClientFault::NoSecrets`], [`ClientFault::TooManySecrets`] or [`ClientFault::Entropy`].
    pub fn add_secret(&mut self, host: &dyn Host) -> Result<NewClientSecret, ClientFault> {
        let secrets = self.secrets_mut()?;
        if secrets.len() >= SECRETS_MAX {
            return Err(ClientFault::TooManySecrets);
        }
        let secret = NewClientSecret::generate(host)?;
        secrets.push(secret.kept.clone());
        Ok(secret)
    }

    /// Withdraws a secret, but never the last one.
    ///
    /// # Errors
    /// [`ClientFault::NoSecrets`], [`ClientFault::UnknownSecret`] or [`ClientFault::LastSecret`].
    pub fn withdraw_secret(&mut self, id: &str) -> Result<(), ClientFault> {
        let secrets = self.secrets_mut()?;
        let place = secrets.iter().position(|secret| secret.id == id).ok_or(ClientFault::UnknownSecret)?;
        if secrets.len() == 1 {
            return Err(ClientFault::LastSecret);
        }
        secrets.remove(place);
        Ok(())
    }

    fn secrets_mut(&mut self) -> Result<&mut Vec<ClientSecret>, ClientFault> {
        match &mut self.auth {
            ClientAuthentication::Secret(secrets) => Ok(secrets),
            ClientAuthentication::None | ClientAuthentication::PrivateKeyJwt(_) => {
                Err(ClientFault::NoSecrets)
            }
        }
    }
}

/// The id of a client: of characters that mean the same with and without form encoding, so that a client which forgets to
/// encode its credentials (RFC 6749 section 2.3.1) is understood like one which does.
#[must_use]
pub fn client_id(text: &str) -> Option<ClientId> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    ClientId::new(text).filter(|id| id.as_str().bytes().all(plain))
}

fn check_grants(grants: Grants, auth: &ClientAuthentication) -> Result<(), ClientFault> {
    if grants == Grants::default() {
        return Err(ClientFault::Grants);
    }
    if grants.has(Grant::RefreshToken) && !grants.has(Grant::Login) {
        return Err(ClientFault::RefreshWithoutLogin);
    }
    if grants.has(Grant::ClientCredentials) && !auth.is_confidential() {
        return Err(ClientFault::PublicClientCredentials);
    }
    Ok(())
}

fn named(what: &'static str, name: &str) -> Result<(), ClientFault> {
    let fits = (1..=ID_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(ClientFault::Name(what)) }
}

#[cfg(test)]
mod tests;
