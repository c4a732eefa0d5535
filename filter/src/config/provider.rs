//! One issuer whose tokens are taken: what they must say, which keys verify them and what of them is passed on.

use tollgate_shared::id::IssuerId;
use tollgate_shared::revocation::CLOCK_SKEW_SECONDS_MAX;
use tollgate_shared::token::{Algorithm, IgnoredKey, KeySet, TokenRules};

use super::{ConfigError, raw};

/// The most header mappings of one provider.
const MAPPINGS_MAX: usize = 32;
/// Headers that a claim may not be written to: they frame, route or authenticate the message.
const UNWRITABLE: [&str; 19] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];
/// An issuer whose tokens are taken.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name in this file and in metrics.
    pub name: String,
    /// What its tokens must say.
    pub rules: TokenRules,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The algorithms it may use.
    pub algorithms: Vec<Algorithm>,
    /// Where its tokens are looked for.
    pub from_headers: Vec<TokenHeader>,
    /// Claims that are passed on.
    pub claim_to_headers: Vec<ClaimHeader>,
    /// The header that carries the whole payload, base64url.
    pub forward_payload_header: Option<String>,
    /// Whether the token itself is passed on.
    pub forward: bool,
}

/// Where a provider's keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// The signed feed of the origin.
    Feed,
    /// This configuration.
    Inline(KeySet, Vec<IgnoredKey>),
    /// A server of the issuer.
    Remote(RemoteJwks),
}

/// Where a foreign issuer publishes its key set, and for how long it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteJwks {
    /// The host's name for the server: an Envoy cluster.
    pub cluster: String,
    /// The `:authority` of the call.
    pub authority: String,
    /// Its path and query.
    pub path: String,
    /// The age at which the set is replaced, in seconds. It is fetched before that.
    pub cache_seconds: u64,
    /// The age at which it is not believed any more, in seconds, if it could not be replaced.
    pub refuse_after_seconds: u64,
}

/// A header that may carry a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHeader {
    /// Its name, in lower case.
    pub name: String,
    /// What stands before the token, compared without regard to case.
    pub value_prefix: String,
}

/// A claim that is passed on in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// The claim.
    pub claim: String,
    /// The header, in lower case.
    pub header: String,
}
impl Provider {
    pub(super) fn check(raw: raw::Provider, path: &str, has_origin: bool) -> Result<Self, ConfigError> {
        let at = |key: &str, message: &str| ConfigError::at(format!("{path}.{key}"), message);
        if raw.name.is_empty() {
            return Err(at("name", "must not be empty"));
        }
        let issuer = IssuerId::new(&raw.issuer).ok_or_else(|| at("issuer", "must be 1 to 255 bytes"))?;
        if raw.audiences.is_empty() || raw.audiences.iter().any(String::is_empty) {
            return Err(at("audiences", "needs at least one audience, and none may be empty"));
        }
        let types = raw.token_types.unwrap_or_else(|| vec![raw::TokenType::AccessToken]);
        if types.is_empty() {
            return Err(at("token_types", "needs `at+jwt`, `JWT` or both"));
        }
        if raw.clock_skew_seconds > CLOCK_SKEW_SECONDS_MAX {
            return Err(at("clock_skew_seconds", "must be at most 300"));
        }
        let payload_path = format!("{path}.forward_payload_header");
        let payload_header = raw.forward_payload_header.map(|name| writable_header(&name, &payload_path));
        let keys = KeySource::check(raw.keys, path, has_origin)?;
        let rules = TokenRules {
            issuer,
            audiences: raw.audiences,
            accept_access_token: types.contains(&raw::TokenType::AccessToken),
            accept_plain: types.contains(&raw::TokenType::Jwt),
            // Tokens of our own issuer always have a status; one without could not be revoked by index.
            require_status: matches!(keys, KeySource::Feed),
            clock_skew_seconds: raw.clock_skew_seconds,
        };
        Ok(Self {
            name: raw.name,
            rules,
            keys,
            algorithms: check_algorithms(&raw.algorithms, path)?,
            from_headers: check_token_headers(raw.from_headers, path)?,
            claim_to_headers: check_mappings(raw.claim_to_headers, path)?,
            forward_payload_header: payload_header.transpose()?,
            forward: raw.forward,
        })
    }
}

impl KeySource {
    fn check(raw: raw::Keys, path: &str, has_origin: bool) -> Result<Self, ConfigError> {
        match raw {
            raw::Keys::Feed if has_origin => Ok(Self::Feed),
            raw::Keys::Feed => Err(ConfigError::at(format!("{path}.keys"), "`feed` needs an `origin`")),
            raw::Keys::Remote(remote) => {
                RemoteJwks::check(remote, &format!("{path}.keys.remote_jwks")).map(Self::Remote)
            }
            raw::Keys::Inline(jwks) => KeySet::from_jwks(jwks.as_bytes())
                .map(|(keys, ignored)| Self::Inline(keys, ignored))
                .map_err(|error| ConfigError::at(format!("{path}.keys.inline_jwks"), error)),
        }
    }
}

impl RemoteJwks {
    fn check(raw: raw::RemoteJwks, path: &str) -> Result<Self, ConfigError> {
        let at = |key: &str, message: &str| ConfigError::at(format!("{path}.{key}"), message);
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible(&raw.cluster) {
            return Err(at("cluster", "must name a cluster of the host"));
        }
        let rest = raw.uri.strip_prefix("https://").or_else(|| raw.uri.strip_prefix("http://"));
        let (authority, path_and_query) =
            rest.and_then(|rest| rest.split_at_checked(rest.find('/')?)).unwrap_or_default();
        if !visible(authority)
            || authority.contains(['@', '?', '#'])
            || !visible(path_and_query)
            || raw.uri.contains('#')
        {
            return Err(at("uri", "must be an http or https URL with a path, without user or fragment"));
        }
        if !(5..=86_400).contains(&raw.cache_seconds) {
            return Err(at("cache_seconds", "must be 5 to 86400"));
        }
        if !(raw.cache_seconds..=604_800).contains(&raw.refuse_after_seconds) {
            return Err(at("refuse_after_seconds", "must be at least cache_seconds and at most 604800"));
        }
        Ok(Self {
            cluster: raw.cluster,
            authority: authority.to_owned(),
            path: path_and_query.to_owned(),
            cache_seconds: raw.cache_seconds,
            refuse_after_seconds: raw.refuse_after_seconds,
        })
    }
}

fn check_algorithms(raw: &[String], path: &str) -> Result<Vec<Algorithm>, ConfigError> {
    if raw.is_empty() {
        return Err(ConfigError::at(
            format!("{path}.algorithms"),
            "needs at least one of EdDSA, ES256, RS256",
        ));
    }
    let check = |(place, name): (usize, &String)| {
        let path = || format!("{path}.algorithms[{place}]");
        Algorithm::of(name).ok_or_else(|| ConfigError::at(path(), "is not one of EdDSA, ES256, RS256"))
    };
    raw.iter().enumerate().map(check).collect()
}

fn check_mappings(raw: Vec<raw::ClaimToHeader>, path: &str) -> Result<Vec<ClaimHeader>, ConfigError> {
    if raw.len() > MAPPINGS_MAX {
        return Err(ConfigError::at(format!("{path}.claim_to_headers"), "more than 32 mappings"));
    }
    let mut mappings: Vec<ClaimHeader> = Vec::with_capacity(raw.len());
    for (place, raw::ClaimToHeader { claim_name: claim, header_name }) in raw.into_iter().enumerate() {
        let path = format!("{path}.claim_to_headers[{place}]");
        if claim.is_empty() {
            return Err(ConfigError::at(format!("{path}.claim_name"), "must not be empty"));
        }
        let header = writable_header(&header_name, &format!("{path}.header_name"))?;
        if mappings.iter().any(|known| known.header == header) {
            return Err(ConfigError::at(
                format!("{path}.header_name"),
                "another claim is written to this header",
            ));
        }
        mappings.push(ClaimHeader { claim, header });
    }
    Ok(mappings)
}

fn check_token_headers(raw: Vec<raw::FromHeader>, path: &str) -> Result<Vec<TokenHeader>, ConfigError> {
    if raw.is_empty() {
        return Err(ConfigError::at(format!("{path}.from_headers"), "needs at least one header"));
    }
    let check = |(place, raw): (usize, raw::FromHeader)| {
        let name = header_name(&raw.name, &format!("{path}.from_headers[{place}].name"))?;
        Ok(TokenHeader { name, value_prefix: raw.value_prefix })
    };
    raw.into_iter().enumerate().map(check).collect()
}

/// A header name as HTTP has it (RFC 9110 section 5.1), in lower case.
fn header_name(name: &str, path: &str) -> Result<String, ConfigError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        return Err(ConfigError::at(path, "is not a header name"));
    }
    Ok(name.to_ascii_lowercase())
}

fn writable_header(name: &str, path: &str) -> Result<String, ConfigError> {
    let name = header_name(name, path)?;
    if UNWRITABLE.contains(&name.as_str()) || name.starts_with("x-envoy-") {
        return Err(ConfigError::at(path, "this header frames, routes or authenticates the message"));
    }
    // Hosts drop or refuse names with underscores, so the application would never see it.
    if name.contains('_') {
        return Err(ConfigError::at(path, "must not contain an underscore"));
    }
    Ok(name)
}
