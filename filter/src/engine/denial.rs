//! The one table from a reason to refuse to what the client and the operator see of it.
//!
//! A client whose token is bad is told so and nothing more, in the same bytes for every cause; the cause goes to metrics
//! and logs.

use tollgate_shared::quota::ledger::Standing;
use tollgate_shared::revocation::{Dimension, RevokedBy};
use tollgate_shared::token::{ClaimError, ParseError, VerifyError};

use super::Refusal;
use super::headers::{HeaderPolicy, ResponseHeader, seconds_up};

/// Problem types that IANA registers for the rate-limit headers draft.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// Its path has more than one reading.
    MalformedPath,
    /// More than one credential, or one header joined from several.
    AmbiguousCredential,
    /// A credential that is not of RFC 6750's alphabet.
    MalformedCredential,
    /// No rule is for it.
    NoRule,
    /// It needs a token and has none.
    NoCredential,
    /// Its token is no good.
    InvalidToken(TokenFault),
    /// The token lacks a scope.
    InsufficientScope {
        /// The scopes the rule needs, separated by spaces.
        scopes: String,
    },
    /// The token has none of the roles that the rule names.
    LacksRole,
    /// The resource is another subject's.
    NotOwner,
    /// A quota is spent.
    QuotaExceeded {
        /// Its name.
        name: String,
        /// Where it stands.
        standing: Standing,
    },
    /// There is no state yet.
    NotReady,
    /// The state is too old.
    TooStale,
    /// The keys of the token's issuer could not be had, or are too old.
    KeysUnavailable,
    /// A lease is needed and could not be had in time.
    QuotaUnavailable,
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenFault {
    /// It is not well-formed.
    Parse(ParseError),
    /// No provider has its issuer, or not in that header.
    UnknownIssuer,
    /// Its issuer did not sign it.
    Verify(VerifyError),
    /// It is not an access token for us, now.
    Claims(ClaimError),
    /// A claim cannot be passed on in a header.
    HeaderValue,
    /// It is revoked.
    Revoked(RevokedBy),
}

impl Denial {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::MalformedPath | Self::AmbiguousCredential | Self::MalformedCredential => 400,
            Self::NoCredential | Self::InvalidToken(_) => 401,
            Self::NoRule | Self::InsufficientScope { .. } | Self::LacksRole | Self::NotOwner => 403,
            Self::QuotaExceeded { .. } => 429,
            Self::NotReady | Self::TooStale | Self::KeysUnavailable | Self::QuotaUnavailable => 503,
        }
    }

    /// The label in metrics and logs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MalformedPath => "malformed_path",
            Self::AmbiguousCredential => "ambiguous_credential",
            Self::MalformedCredential => "malformed_credential",
            Self::NoRule => "no_rule",
            Self::NoCredential => "no_credential",
            Self::InvalidToken(fault) => fault.reason(),
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::LacksRole => "lacks_role",
            Self::NotOwner => "not_owner",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::NotReady => "not_ready",
            Self::TooStale => "too_stale",
            Self::KeysUnavailable => "keys_unavailable",
            Self::QuotaUnavailable => "quota_unavailable",
        }
    }

    fn challenge(&self, realm: &str) -> Option<String> {
        let error = match self {
            Self::NoCredential => return Some(format!("Bearer realm=\"{realm}\"")),
            Self::InvalidToken(_) => "error=\"invalid_token\"".to_owned(),
            Self::InsufficientScope { scopes } => format!("error=\"insufficient_scope\", scope=\"{scopes}\""),
            Self::LacksRole | Self::NotOwner => "error=\"insufficient_scope\"".to_owned(),
            Self::AmbiguousCredential | Self::MalformedCredential => "error=\"invalid_request\"".to_owned(),
            Self::MalformedPath
            | Self::NoRule
            | Self::QuotaExceeded { .. }
            | Self::NotReady
            | Self::TooStale
            | Self::KeysUnavailable
            | Self::QuotaUnavailable => return None,
        };
        Some(format!("Bearer realm=\"{realm}\", {error}"))
    }

    fn body(&self) -> serde_json::Value {
        let plain = |title: &str| serde_json::json!({ "type": "about:blank", "title": title, "status": self.status() });
        match self {
            Self::MalformedPath | Self::AmbiguousCredential | Self::MalformedCredential => {
                plain("Bad Request")
            }
            Self::NoCredential | Self::InvalidToken(_) => plain("Unauthorized"),
            Self::NoRule | Self::InsufficientScope { .. } | Self::LacksRole | Self::NotOwner => {
                plain("Forbidden")
            }
            Self::QuotaExceeded { name, .. } => serde_json::json!({
                "type": QUOTA_EXCEEDED,
                "title": "Request cannot be satisfied as assigned quota has been exceeded",
                "status": 429,
                "violated-policies": [name],
            }),
            Self::NotReady | Self::TooStale | Self::KeysUnavailable | Self::QuotaUnavailable => {
                serde_json::json!({
                    "type": REDUCED_CAPACITY,
                    "title": "Request cannot be satisfied due to temporary server capacity constraints",
                    "status": 503,
                })
            }
        }
    }

    /// Seconds after which the same request may fare better. Spread, so that clients do not come back at once; never
    /// earlier than a quota resets.
    fn retry_after(&self, random: u64) -> Option<u64> {
        match self {
            Self::QuotaExceeded { standing, .. } => Some(seconds_up(standing.resets_in).max(1) + random % 3),
            Self::NotReady | Self::TooStale | Self::KeysUnavailable | Self::QuotaUnavailable => {
                Some(1 + random % 4)
            }
            Self::MalformedPath
            | Self::AmbiguousCredential
            | Self::MalformedCredential
            | Self::NoRule
            | Self::NoCredential
            | Self::InvalidToken(_)
            | Self::InsufficientScope { .. }
            | Self::LacksRole
            | Self::NotOwner => None,
        }
    }

    pub(super) fn refusal(self, realm: &str, policy: &HeaderPolicy, random: u64) -> Refusal {
        let mut headers: Vec<ResponseHeader> = vec![("content-type", "application/problem+json".to_owned())];
        headers.push(("cache-control", "no-store".to_owned()));
        headers.extend(self.challenge(realm).map(|challenge| ("www-authenticate", challenge)));
        headers.extend(self.retry_after(random).map(|seconds| ("retry-after", seconds.to_string())));
        if let Self::QuotaExceeded { name, standing } = &self {
            headers.extend(policy.standing(&[(name.clone(), *standing)]));
        }
        Refusal { status: self.status(), headers, body: self.body().to_string(), denial: self }
    }
}

impl TokenFault {
    /// The label in metrics and logs.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Parse(error) => parse_reason(error),
            Self::UnknownIssuer => "unknown_issuer",
            Self::Verify(VerifyError::UnknownKey) => "unknown_key",
            Self::Verify(VerifyError::AlgorithmMismatch) => "algorithm_mismatch",
            Self::Verify(VerifyError::AlgorithmNotAllowed) => "algorithm_not_allowed",
            Self::Verify(VerifyError::Signature) => "signature",
            Self::Claims(error) => claim_reason(error),
            Self::HeaderValue => "claim_unfit_for_header",
            Self::Revoked(RevokedBy::Index) => "revoked_token",
            Self::Revoked(RevokedBy::Cutoff(dimension)) => match dimension {
                Dimension::Token => "revoked_token",
                Dimension::Session => "revoked_session",
                Dimension::Subject => "revoked_subject",
                Dimension::Client => "revoked_client",
                Dimension::Tenant => "revoked_tenant",
                Dimension::Key => "revoked_key",
                Dimension::Issuer => "revoked_issuer",
            },
        }
    }
}

fn parse_reason(error: ParseError) -> &'static str {
    match error {
        ParseError::Empty | ParseError::Segments | ParseError::SignatureEmpty => "segments",
        ParseError::TooLong => "too_long",
        ParseError::Base64 => "base64",
        ParseError::HeaderMalformed | ParseError::HeaderNotObject | ParseError::TypeMalformed => "header",
        ParseError::DuplicateMember => "duplicate_member",
        ParseError::TooComplex => "too_complex",
        ParseError::CriticalExtension => "crit",
        ParseError::UnencodedPayload => "b64",
        ParseError::Encrypted => "encrypted",
        ParseError::AlgorithmMissing | ParseError::AlgorithmRefused => "algorithm",
        ParseError::KeyIdMissing | ParseError::KeyIdMalformed => "key_id",
        ParseError::ClaimsMalformed => "claims",
    }
}

fn claim_reason(error: ClaimError) -> &'static str {
    match error {
        ClaimError::TokenType => "token_type",
        ClaimError::Issuer => "issuer",
        ClaimError::Audience => "audience",
        ClaimError::Subject => "subject",
        ClaimError::TokenId => "token_id",
        ClaimError::Client => "client",
        ClaimError::ExpiryMalformed => "expiry",
        ClaimError::IssuedAtMalformed => "issued_at",
        ClaimError::NotBeforeMalformed => "not_before",
        ClaimError::Expired => "expired",
        ClaimError::NotYetValid => "not_yet_valid",
        ClaimError::IssuedInFuture => "issued_in_future",
        ClaimError::Scope => "scope",
        ClaimError::Roles => "roles",
        ClaimError::Reference => "reference",
        ClaimError::Status => "status",
    }
}
