//! Decides which key and algorithm a token names, and refuses every header that asks for more than that.

use super::json::JsonValue;
use super::keys::Algorithm;
use super::verify::ParseError;
use crate::id::KeyId;

/// A JOSE header (RFC 7515 section 4) reduced to what is acted upon. `jwk`, `jku`, `x5u`, `x5c` and the rest are
/// read by nobody: a token cannot bring its own key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `alg`, one of the static list.
    pub algorithm: Algorithm,
    /// `kid`, compared byte for byte.
    pub key_id: KeyId,
    /// `typ`.
    pub token_type: TokenType,
}

/// The kinds of token that can be told apart by `typ` (RFC 8725 section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// `at+jwt` or `application/at+jwt`: an access token by RFC 9068.
    AccessToken,
    /// `JWT`: says nothing about its purpose; taken only where the configuration allows it.
    Plain,
    /// No `typ` at all; taken where [`TokenType::Plain`] is.
    Absent,
    /// Anything else: an ID token, a logout token, a status list.
    Other,
}

impl TokenType {
    fn of(text: &str) -> Self {
        // Media types compare without regard to case (RFC 2045 section 5.1).
        if text.eq_ignore_ascii_case("at+jwt") || text.eq_ignore_ascii_case("application/at+jwt") {
            Self::AccessToken
        } else if text.eq_ignore_ascii_case("jwt") {
            Self::Plain
        } else {
            Self::Other
        }
    }
}

impl Header {
    pub(super) fn read(value: &JsonValue) -> Result<Self, ParseError> {
        if !matches!(value, JsonValue::Object(_)) {
            return Err(ParseError::HeaderNotObject);
        }
        // RFC 7515 section 4.1.11: a critical extension that is not understood voids the token; none is understood.
        if value.member("crit").is_some() {
            return Err(ParseError::CriticalExtension);
        }
        if value.member("b64").is_some() {
            return Err(ParseError::UnencodedPayload);
        }
        if value.member("enc").is_some() || value.member("zip").is_some() {
            return Err(ParseError::Encrypted);
        }
        let name = value.member("alg").ok_or(ParseError::AlgorithmMissing)?;
        let name = name.text().ok_or(ParseError::AlgorithmRefused)?;
        let algorithm = Algorithm::of(name).ok_or(ParseError::AlgorithmRefused)?;
        let key_id = value.member("kid").ok_or(ParseError::KeyIdMissing)?;
        let key_id = key_id.text().and_then(KeyId::new).ok_or(ParseError::KeyIdMalformed)?;
        let token_type = match value.member("typ") {
            None => TokenType::Absent,
            Some(typ) => TokenType::of(typ.text().ok_or(ParseError::TypeMalformed)?),
        };
        Ok(Self { algorithm, key_id, token_type })
    }
}
