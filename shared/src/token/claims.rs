//! Decides what the claims of a signed token must be for this audience, at this time (RFC 9068 section 4).

use super::header::{Header, TokenType};
use super::json::JsonValue;
use crate::id::{ClientId, IssuerId, PlanName, SessionId, Subject, TenantId, TokenId};
use crate::time::UnixSeconds;

/// Dates beyond this are refused: 2^53, the last integer that every JSON implementation can hold.
const NUMERIC_DATE_MAX: u64 = 1 << 53;
/// The longest `uri` of a status list, in bytes.
const STATUS_URI_BYTES_MAX: usize = 512;

/// What an audience expects of an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRules {
    /// `iss` must be exactly this.
    pub issuer: IssuerId,
    /// `aud` must hold one of these, exactly.
    pub audiences: Vec<String>,
    /// Whether `typ: at+jwt` is taken.
    pub accept_access_token: bool,
    /// Whether `typ: JWT` and tokens without `typ` are taken. They may be meant for another purpose (RFC 8725
    /// section 3.11), so only for issuers that make no other kind.
    pub accept_plain: bool,
    /// Whether `status.status_list` must be there: without it a token could not be revoked by index.
    pub require_status: bool,
    /// How far this clock and the issuer's may differ, in seconds.
    pub clock_skew_seconds: u64,
}

/// The claims that are acted upon, each of its proper type.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    /// `iss`
    pub issuer: IssuerId,
    /// `sub`
    pub subject: Subject,
    /// `client_id`
    pub client: Option<ClientId>,
    /// `jti`
    pub token_id: TokenId,
    /// `iat`
    pub issued_at: Option<UnixSeconds>,
    /// `nbf`
    pub not_before: Option<UnixSeconds>,
    /// `exp`
    pub expires_at: UnixSeconds,
    /// `scope`, split at spaces.
    pub scopes: Vec<String>,
    /// `roles`
    pub roles: Vec<String>,
    /// `tenant`
    pub tenant: Option<TenantId>,
    /// `plan`
    pub plan: Option<PlanName>,
    /// `sid`
    pub session: Option<SessionId>,
    /// `status.status_list`
    pub status: Option<StatusReference>,
    /// Every claim, for those that are only passed on.
    pub all: JsonValue,
}

/// Where a Token Status List keeps this token's bit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusReference {
    /// `idx`: the place in the list.
    pub index: u32,
    /// `uri`: which list.
    pub uri: String,
}

/// Why a signed token is not an access token for this audience now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[expect(missing_docs, reason = "the error text of each says what its documentation would")]
pub enum ClaimError {
    #[error("typ is not that of an access token")]
    TokenType,
    #[error("iss is missing, malformed or another issuer's")]
    Issuer,
    #[error("aud is missing, malformed or names another audience")]
    Audience,
    #[error("sub is missing or malformed")]
    Subject,
    #[error("jti is missing or malformed")]
    TokenId,
    #[error("client_id is missing or malformed")]
    Client,
    #[error("exp is missing or not a date")]
    ExpiryMalformed,
    #[error("iat is missing or not a date")]
    IssuedAtMalformed,
    #[error("nbf is not a date")]
    NotBeforeMalformed,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYetValid,
    #[error("issued in the future")]
    IssuedInFuture,
    #[error("scope is not a string")]
    Scope,
    #[error("roles is not an array of strings")]
    Roles,
    #[error("tenant, plan or sid is not a string of 1 to 255 bytes")]
    Reference,
    #[error("status is missing or malformed")]
    Status,
}

impl Claims {
    pub(super) fn read(all: &JsonValue, header: &Header, rules: &TokenRules) -> Result<Self, ClaimError> {
        let strict = match header.token_type {
            TokenType::AccessToken if rules.accept_access_token => true,
            TokenType::Plain | TokenType::Absent if rules.accept_plain => false,
            TokenType::AccessToken | TokenType::Plain | TokenType::Absent | TokenType::Other => {
                return Err(ClaimError::TokenType);
            }
        };
        let issuer =
            all.member("iss").and_then(JsonValue::text).and_then(IssuerId::new).ok_or(ClaimError::Issuer)?;
        if issuer != rules.issuer {
            return Err(ClaimError::Issuer);
        }
        meant_for(all.member("aud"), &rules.audiences)?;
        let claims = Self {
            issuer,
            subject: required(all, "sub", Subject::new).ok_or(ClaimError::Subject)?,
            token_id: required(all, "jti", TokenId::new).ok_or(ClaimError::TokenId)?,
            client: optional(all, "client_id", ClientId::new, ClaimError::Client)?,
            expires_at: date(all.member("exp"), f64::floor)
                .ok_or(ClaimError::ExpiryMalformed)?
                .ok_or(ClaimError::ExpiryMalformed)?,
            issued_at: date(all.member("iat"), f64::floor).ok_or(ClaimError::IssuedAtMalformed)?,
            not_before: date(all.member("nbf"), f64::ceil).ok_or(ClaimError::NotBeforeMalformed)?,
            scopes: scopes(all.member("scope"))?,
            roles: roles(all.member("roles"))?,
            tenant: optional(all, "tenant", TenantId::new, ClaimError::Reference)?,
            plan: optional(all, "plan", PlanName::new, ClaimError::Reference)?,
            session: optional(all, "sid", SessionId::new, ClaimError::Reference)?,
            status: status(all.member("status"))?,
            all: all.clone(),
        };
        if strict && claims.client.is_none() {
            return Err(ClaimError::Client);
        }
        if strict && claims.issued_at.is_none() {
            return Err(ClaimError::IssuedAtMalformed);
        }
        if rules.require_status && claims.status.is_none() {
            return Err(ClaimError::Status);
        }
        Ok(claims)
    }

    /// Checks `exp`, `nbf` and `iat` at the instant `now`.
    ///
    /// # Errors
    /// [`ClaimError::Expired`], [`ClaimError::NotYetValid`] or [`ClaimError::IssuedInFuture`].
    pub fn in_time(&self, rules: &TokenRules, now: UnixSeconds) -> Result<(), ClaimError> {
        let skew = rules.clock_skew_seconds;
        if self.expires_at.plus(skew) <= now {
            return Err(ClaimError::Expired);
        }
        if self.not_before.is_some_and(|date| date > now.plus(skew)) {
            return Err(ClaimError::NotYetValid);
        }
        if self.issued_at.is_some_and(|date| date > now.plus(skew)) {
            return Err(ClaimError::IssuedInFuture);
        }
        Ok(())
    }
}

fn required<T>(all: &JsonValue, name: &str, make: impl Fn(&str) -> Option<T>) -> Option<T> {
    all.member(name).and_then(JsonValue::text).and_then(make)
}

fn optional<T>(
    all: &JsonValue,
    name: &str,
    make: impl Fn(&str) -> Option<T>,
    fault: ClaimError,
) -> Result<Option<T>, ClaimError> {
    match all.member(name) {
        None => Ok(None),
        Some(value) => value.text().and_then(make).map(Some).ok_or(fault),
    }
}

fn meant_for(aud: Option<&JsonValue>, audiences: &[String]) -> Result<(), ClaimError> {
    let aud = aud.ok_or(ClaimError::Audience)?;
    let names: Option<Vec<&str>> = match aud.list() {
        Some(names) => names.iter().map(JsonValue::text).collect(),
        None => aud.text().map(|name| vec![name]),
    };
    let ours = |name: &&str| audiences.iter().any(|audience| audience == name);
    if names.is_some_and(|names| names.iter().any(ours)) { Ok(()) } else { Err(ClaimError::Audience) }
}

/// A `NumericDate`: absent is `Some(None)`, malformed is `None`. Fractions are allowed (RFC 7519 section 2) and
/// rounded to the side that shortens the token's life.
fn date(value: Option<&JsonValue>, round: fn(f64) -> f64) -> Option<Option<UnixSeconds>> {
    match value {
        None => Some(None),
        Some(JsonValue::Unsigned(seconds)) if *seconds <= NUMERIC_DATE_MAX => {
            Some(Some(UnixSeconds(*seconds)))
        }
        Some(JsonValue::Float(seconds)) => whole_seconds(round(*seconds)).map(Some),
        Some(
            JsonValue::Null
            | JsonValue::Bool(_)
            | JsonValue::Unsigned(_)
            | JsonValue::Text(_)
            | JsonValue::List(_)
            | JsonValue::Object(_),
        ) => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the range is checked first, and 2^53 is exact"
)]
fn whole_seconds(seconds: f64) -> Option<UnixSeconds> {
    let in_range = seconds.is_finite() && seconds.is_sign_positive() && seconds <= NUMERIC_DATE_MAX as f64;
    in_range.then_some(UnixSeconds(seconds as u64))
}

fn scopes(value: Option<&JsonValue>) -> Result<Vec<String>, ClaimError> {
    match value {
        None => Ok(Vec::new()),
        Some(value) => {
            let text = value.text().ok_or(ClaimError::Scope)?;
            Ok(text.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect())
        }
    }
}

fn roles(value: Option<&JsonValue>) -> Result<Vec<String>, ClaimError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let names = value.list().ok_or(ClaimError::Roles)?.iter().map(JsonValue::text);
    names.map(|name| name.map(str::to_owned).ok_or(ClaimError::Roles)).collect()
}

fn status(value: Option<&JsonValue>) -> Result<Option<StatusReference>, ClaimError> {
    let Some(status) = value else { return Ok(None) };
    let list = status.member("status_list").ok_or(ClaimError::Status)?;
    let index = match list.member("idx") {
        Some(JsonValue::Unsigned(index)) => u32::try_from(*index).map_err(|_| ClaimError::Status)?,
        _ => return Err(ClaimError::Status),
    };
    let uri = list.member("uri").and_then(JsonValue::text).ok_or(ClaimError::Status)?;
    if uri.is_empty() || uri.len() > STATUS_URI_BYTES_MAX {
        return Err(ClaimError::Status);
    }
    Ok(Some(StatusReference { index, uri: uri.to_owned() }))
}
