//! Decides what an operator's order means: the same rules for the API and for the command line.

use tollgate_shared::id::{EdgeId, ID_BYTES_MAX};
use tollgate_shared::revocation::Dimension;

use crate::app::App;
use crate::clock::EntropyError;
use crate::credential::{CredentialKind, NewCredential, new_id};
use crate::oauth::scope::{SCOPES_MAX, is_scope_token};
use crate::password::{NewPassword, Password, PasswordContext, PasswordError, PasswordRefused};
use crate::store::{NewUser, RevocationOrder, StoreError, User};

/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1000;

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

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// A name is empty, too long, or has characters that it may not have.
    #[error("{0}: is empty, too long, or has characters that it may not have")]
    Name(&'static str),
    /// There are too many roles or scopes.
    #[error("{0}: more than {SCOPES_MAX}")]
    TooMany(&'static str),
    /// There is no such plan.
    #[error("plan: there is none of this name")]
    Plan,
    /// There is no such dimension.
    #[error("dimension: must be token, session, subject, client, tenant, key or issuer")]
    Dimension,
    /// The password may not be set.
    #[error(transparent)]
    Refused(#[from] PasswordRefused),
    /// The password could not be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random bytes.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl App {
    /// Adds a user.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_user(&self, order: UserOrder) -> Result<User, OrderError> {
        let UserOrder { username, password, plan, roles, scopes, tenant } = order;
        let plan = plan.unwrap_or_else(|| self.plans.default_name().to_owned());
        named("username", &username)?;
        if !self.plans.has(&plan) {
            return Err(OrderError::Plan);
        }
        if let Some(tenant) = &tenant {
            named("tenant", tenant)?;
        }
        tokens("roles", &roles)?;
        tokens("scopes", &scopes)?;
        let context = PasswordContext { username: &username, issuer: self.settings.issuer.as_str() };
        let password = NewPassword::new(password, &context)?;
        let password_hash = self.passwords.hash(&password).await?;
        let user =
            User { id: new_id("u_", &*self.host)?, username, plan, roles, scopes, tenant, disabled: false };
        let new = NewUser { user, password_hash };
        self.store.add_user(&new, self.host.seconds()).await?;
        Ok(new.user)
    }

    /// Makes an edge's credential.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_edge(&self, id: &str) -> Result<NewCredential, OrderError> {
        // It stands in configurations and in URLs.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let edge =
            EdgeId::new(id).filter(|id| id.as_str().bytes().all(plain)).ok_or(OrderError::Name("edge"))?;
        Ok(self.store.add_credential(CredentialKind::Edge, edge.as_str(), &*self.host).await?)
    }

    /// Makes an operator's credential.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn add_operator(&self, name: &str) -> Result<NewCredential, OrderError> {
        named("operator", name)?;
        Ok(self.store.add_credential(CredentialKind::Operator, name, &*self.host).await?)
    }

    /// The order to revoke everything with `value` in a dimension. An issuer that is ours is the one meant by none.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub fn revocation_order(
        &self,
        dimension: &str,
        value: &str,
        issuer: Option<&str>,
        reason: Option<&str>,
    ) -> Result<RevocationOrder, OrderError> {
        let dimension = Dimension::of(dimension).ok_or(OrderError::Dimension)?;
        named("value", value)?;
        if let Some(issuer) = issuer {
            named("issuer", issuer)?;
        }
        if reason.is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            return Err(OrderError::Name("reason"));
        }
        let ours = self.settings.issuer.as_str();
        // An issuer is named by the value; naming another beside it would cover no token at all.
        let issuer = match (dimension, issuer) {
            (Dimension::Issuer, Some(issuer)) if issuer != value => return Err(OrderError::Name("issuer")),
            (Dimension::Issuer, _) => Some(value),
            (_, issuer) => issuer,
        };
        let issuer = issuer.filter(|issuer| *issuer != ours).map(str::to_owned);
        Ok(RevocationOrder::Value { dimension, issuer, value: value.to_owned() })
    }
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
