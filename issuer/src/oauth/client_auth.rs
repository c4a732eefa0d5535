//! Decides which client makes a request: first who it says it is and how it would prove that, then whether it did.
//!
//! *What comes in:* an `Authorization` header and a form, chosen by anyone. *What goes out:* an [`AuthenticatedClient`],
//! which nothing else can make. *What an attacker gains if this is wrong:* every token of a client.
//!
//! Both halves of a Basic credential are decoded as forms are (RFC 6749 section 2.3.1). Some libraries do not encode them;
//! our ids and secrets are of characters that the encoding leaves alone, so nothing depends on it.

use std::fmt;

use axum::http::{HeaderMap, header};
use base64ct::{Base64, Encoding};
use subtle::{Choice, ConstantTimeEq};
use tollgate_shared::id::ClientId;
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::SignatureBackend;
use zeroize::Zeroizing;

use super::assertion::{AssertionFault, UntrustedAssertion, UsedAssertion};
use super::error::{Attempt, OAuthError, RequestFault};
use super::form::{Form, decoded};
use crate::client::{Client, ClientAuthentication, ClientSecret, SECRETS_MAX, client_id};
use crate::credential::SecretDigest;

/// The longest Basic credential, in bytes of base64.
const BASIC_BYTES_MAX: usize = 2048;
/// The longest secret that is compared, in bytes.
const SECRET_BYTES_MAX: usize = 256;
/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client as it presented itself: well-formed, and nothing more.
pub enum PresentedClient {
    /// `client_secret_basic`
    Basic {
        /// Who it says it is.
        id: ClientId,
        /// The proof.
        secret: Zeroizing<String>,
    },
    /// `client_secret_post`
    Post {
        /// Who it says it is.
        id: ClientId,
        /// The proof.
        secret: Zeroizing<String>,
    },
    /// `private_key_jwt`
    Assertion(UntrustedAssertion),
    /// `none`: a client that has nothing to prove itself with.
    Public(ClientId),
}

/// How a client proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientMethod {
    /// Its secret, in the header.
    Basic,
    /// Its secret, in the form.
    Post,
    /// An assertion.
    PrivateKeyJwt,
    /// Not at all; it is public.
    None,
}

/// A client that is in force and proved who it is, as far as clients of its kind can.
#[derive(Debug, Clone, Copy)]
pub struct AuthenticatedClient<'c> {
    client: &'c Client,
    method: ClientMethod,
}

/// A client whose assertion is good, if this is its first use.
#[derive(Debug)]
pub struct UnrecordedClient<'c> {
    client: &'c Client,
    used: UsedAssertion,
}

/// What came of a check.
#[derive(Debug)]
#[must_use]
pub enum VerifiedClient<'c> {
    /// The client is who it says.
    Now(AuthenticatedClient<'c>),
    /// The client is who it says once the use of its assertion is recorded.
    OnceRecorded(UnrecordedClient<'c>),
}

/// What the record of assertions said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssertionUse {
    /// It was not there and now is, for good.
    First,
    /// It was there: somebody sends it again.
    Repeated,
}

/// Why a client is not authenticated, and what it tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ClientAuthError {
    /// What it tried.
    pub attempt: Attempt,
    /// Why that was not enough.
    pub fault: AuthFault,
}

/// Why a client is not authenticated. But for the first, the client is told only that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthFault {
    /// The request makes no sense.
    #[error(transparent)]
    Request(#[from] RequestFault),
    /// There is nothing to authenticate by.
    #[error("no client authentication")]
    Nothing,
    /// The header has another scheme, or is no Basic credential of a client.
    #[error("not a Basic credential of a client")]
    Header,
    /// There is no such client.
    #[error("unknown client")]
    Unknown,
    /// The client gets nothing for now.
    #[error("client is disabled")]
    Disabled,
    /// The client proves itself in another way.
    #[error("not how this client authenticates")]
    Method,
    /// None of its secrets is this one.
    #[error("wrong secret")]
    Secret,
    /// The assertion proves nothing.
    #[error("assertion: {0}")]
    Assertion(#[from] AssertionFault),
    /// The assertion was used before.
    #[error("assertion was used before")]
    Replayed,
}

impl PresentedClient {
    /// Reads who the client says it is and what it proves that with. There must be one method and no second one (RFC 6749
    /// section 2.3), and one name.
    ///
    /// # Errors
    /// [`ClientAuthError`], which becomes `invalid_request` or `invalid_client`.
    pub fn read(headers: &HeaderMap, form: &Form) -> Result<Self, ClientAuthError> {
        let basic = headers.contains_key(header::AUTHORIZATION);
        let secret = form.value("client_secret");
        let assertion = form.value("client_assertion");
        let assertion_type = form.value("client_assertion_type");
        let assertion_tried = assertion.is_some() || assertion_type.is_some();
        let attempt = match form.value("client_id") {
            _ if basic => Attempt::Basic,
            None if secret.is_none() && !assertion_tried => Attempt::Nothing,
            _ => Attempt::Form,
        };
        let refuse = |fault: AuthFault| ClientAuthError { attempt, fault };
        if usize::from(basic) + usize::from(secret.is_some()) + usize::from(assertion_tried) > 1 {
            return Err(refuse(RequestFault::SeveralMethods.into()));
        }
        let named = form.value("client_id");
        let presented = if basic {
            read_basic(headers)
        } else if let Some(secret) = secret {
            read_post(named, secret)
        } else if assertion_tried {
            read_assertion(assertion, assertion_type)
        } else {
            let id = named.ok_or(AuthFault::Nothing);
            id.and_then(|id| client_id(id).ok_or(AuthFault::Unknown)).map(Self::Public)
        }
        .map_err(refuse)?;
        if named.is_some_and(|named| named != presented.id().as_str()) {
            return Err(refuse(RequestFault::OtherClient.into()));
        }
        Ok(presented)
    }

    /// Who it says it is: by this it is looked up.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        match self {
            Self::Basic { id, .. } | Self::Post { id, .. } | Self::Public(id) => id,
            Self::Assertion(assertion) => assertion.claimed_client(),
        }
    }

    /// What it tried.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        match self {
            Self::Basic { .. } => Attempt::Basic,
            Self::Post { .. } | Self::Assertion(_) | Self::Public(_) => Attempt::Form,
        }
    }

    /// Checks the proof against what is known of the client, which may be nothing. The work for a secret is the same for
    /// every client and for none. That a client exists is otherwise no secret: its name is in each of its tokens.
    ///
    /// # Errors
    /// [`ClientAuthError`], which becomes `invalid_client`.
    pub fn verify<'c>(
        &self,
        client: Option<&'c Client>,
        now: UnixSeconds,
        audiences: &[&str],
        crypto: &impl SignatureBackend,
    ) -> Result<VerifiedClient<'c>, ClientAuthError> {
        // Whoever looked it up may have been mistaken.
        let client = client.filter(|client| client.id == *self.id());
        let verified = match self {
            Self::Basic { secret, .. } => with_secret(client, secret, ClientMethod::Basic),
            Self::Post { secret, .. } => with_secret(client, secret, ClientMethod::Post),
            Self::Assertion(assertion) => with_assertion(client, assertion, audiences, now, crypto),
            Self::Public(_) => as_public(client),
        };
        verified.map_err(|fault| ClientAuthError { attempt: self.attempt(), fault })
    }
}

// It may hold a secret.
impl fmt::Debug for PresentedClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PresentedClient").field("id", self.id()).finish_non_exhaustive()
    }
}

fn read_basic(headers: &HeaderMap) -> Result<PresentedClient, AuthFault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(RequestFault::SeveralHeaders.into());
    };
    let value = value.to_str().map_err(|_| AuthFault::Header)?;
    let (scheme, credential) = value.split_once(' ').ok_or(AuthFault::Header)?;
    let credential = credential.trim_start_matches(' ');
    if !scheme.eq_ignore_ascii_case("basic") || credential.len() > BASIC_BYTES_MAX {
        return Err(AuthFault::Header);
    }
    let pair = Zeroizing::new(Base64::decode_vec(credential).map_err(|_| AuthFault::Header)?);
    let colon = pair.iter().position(|byte| *byte == b':').ok_or(AuthFault::Header)?;
    let (id, secret) = pair.split_at_checked(colon).ok_or(AuthFault::Header)?;
    let id = decoded(id).as_deref().and_then(|id| client_id(id)).ok_or(AuthFault::Header)?;
    let secret = secret.get(1..).and_then(decoded).ok_or(AuthFault::Header)?;
    if secret.len() > SECRET_BYTES_MAX {
        return Err(AuthFault::Header);
    }
    Ok(PresentedClient::Basic { id, secret })
}

fn read_post(named: Option<&str>, secret: &str) -> Result<PresentedClient, AuthFault> {
    let id = named.ok_or(RequestFault::Missing("client_id"))?;
    let id = client_id(id).ok_or(AuthFault::Unknown)?;
    if secret.len() > SECRET_BYTES_MAX {
        return Err(AuthFault::Secret);
    }
    Ok(PresentedClient::Post { id, secret: Zeroizing::new(secret.to_owned()) })
}

fn read_assertion(assertion: Option<&str>, kind: Option<&str>) -> Result<PresentedClient, AuthFault> {
    let assertion = assertion.ok_or(RequestFault::Missing("client_assertion"))?;
    match kind {
        Some(ASSERTION_TYPE) => {}
        Some(_) => return Err(RequestFault::Malformed("client_assertion_type").into()),
        None => return Err(RequestFault::Missing("client_assertion_type").into()),
    }
    Ok(PresentedClient::Assertion(UntrustedAssertion::parse(assertion)?))
}

fn with_secret<'c>(
    client: Option<&'c Client>,
    secret: &str,
    method: ClientMethod,
) -> Result<VerifiedClient<'c>, AuthFault> {
    let secrets = match client.map(|client| &client.auth) {
        Some(ClientAuthentication::Secret(secrets)) => secrets.as_slice(),
        Some(ClientAuthentication::None | ClientAuthentication::PrivateKeyJwt(_)) | None => &[],
    };
    let right = is_one_of(secrets, &SecretDigest::of(secret.as_bytes()));
    let client = client.ok_or(AuthFault::Unknown)?;
    if secrets.is_empty() {
        return Err(AuthFault::Method);
    }
    if !right {
        return Err(AuthFault::Secret);
    }
    Ok(VerifiedClient::Now(in_force(client, method)?))
}

fn with_assertion<'c>(
    client: Option<&'c Client>,
    assertion: &UntrustedAssertion,
    audiences: &[&str],
    now: UnixSeconds,
    crypto: &impl SignatureBackend,
) -> Result<VerifiedClient<'c>, AuthFault> {
    let client = client.ok_or(AuthFault::Unknown)?;
    let ClientAuthentication::PrivateKeyJwt(keys) = &client.auth else { return Err(AuthFault::Method) };
    let used = assertion.verify(keys.set(), audiences, now, crypto)?;
    let AuthenticatedClient { client, method: _ } = in_force(client, ClientMethod::PrivateKeyJwt)?;
    Ok(VerifiedClient::OnceRecorded(UnrecordedClient { client, used }))
}

fn as_public(client: Option<&Client>) -> Result<VerifiedClient<'_>, AuthFault> {
    let client = client.ok_or(AuthFault::Unknown)?;
    // A client that has something to prove itself with must do so, or a name would be all it takes.
    if client.auth.is_confidential() {
        return Err(AuthFault::Method);
    }
    Ok(VerifiedClient::Now(in_force(client, ClientMethod::None)?))
}

fn in_force(client: &Client, method: ClientMethod) -> Result<AuthenticatedClient<'_>, AuthFault> {
    if client.disabled { Err(AuthFault::Disabled) } else { Ok(AuthenticatedClient { client, method }) }
}

/// Whether one of `secrets` has this digest. There are always as many comparisons as a client can have secrets, and each
/// looks at all bytes.
fn is_one_of(secrets: &[ClientSecret], presented: &SecretDigest) -> bool {
    let nobodys = [0; 32];
    let real = secrets.iter().map(|secret| (secret.digest.as_bytes(), Choice::from(1)));
    let filled = real.chain(std::iter::repeat((&nobodys, Choice::from(0)))).take(SECRETS_MAX);
    let found = filled.fold(Choice::from(0), |found, (digest, counts)| {
        found | (digest.ct_eq(presented.as_bytes()) & counts)
    });
    found.into()
}

impl<'c> UnrecordedClient<'c> {
    /// What is to be recorded, until when.
    #[must_use]
    pub fn used(&self) -> UsedAssertion {
        self.used
    }

    /// The client, after its assertion was recorded.
    ///
    /// # Errors
    /// [`ClientAuthError`] when it was used before.
    pub fn recorded(self, outcome: AssertionUse) -> Result<AuthenticatedClient<'c>, ClientAuthError> {
        match outcome {
            AssertionUse::First => {
                Ok(AuthenticatedClient { client: self.client, method: ClientMethod::PrivateKeyJwt })
            }
            AssertionUse::Repeated => {
                Err(ClientAuthError { attempt: Attempt::Form, fault: AuthFault::Replayed })
            }
        }
    }
}

impl<'c> AuthenticatedClient<'c> {
    /// Which client.
    #[must_use]
    pub fn client(&self) -> &'c Client {
        self.client
    }

    /// How it proved who it is.
    #[must_use]
    pub fn method(&self) -> ClientMethod {
        self.method
    }
}

impl From<ClientAuthError> for OAuthError {
    fn from(error: ClientAuthError) -> Self {
        let ClientAuthError { attempt, fault } = error;
        match fault {
            AuthFault::Request(fault) => Self::InvalidRequest(fault),
            AuthFault::Nothing
            | AuthFault::Header
            | AuthFault::Unknown
            | AuthFault::Disabled
            | AuthFault::Method
            | AuthFault::Secret
            | AuthFault::Assertion(_)
            | AuthFault::Replayed => Self::InvalidClient(attempt),
        }
    }
}

#[cfg(test)]
mod tests;
