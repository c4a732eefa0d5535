//! Decides whether a filter configuration can be acted upon, and says which key is wrong when it cannot.
//!
//! *What comes in:* JSON from an operator (Envoy hands over its YAML as JSON). *What goes out:* a [`Config`] without a
//! question left open. *What is lost if this is wrong:* a misspelt `requires` opens a route, so whatever is not known
//! is refused.

mod raw;
mod rule;

use std::fmt;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use tollgate_shared::id::{EdgeId, IssuerId};
use tollgate_shared::token::{Algorithm, IgnoredKey, KeySet, TokenRules};
use tollgate_shared::wire::feed::TrustAnchor;

pub use rule::{Access, Owner, PathMatch, QuotaCharge, Requirement, Rule, Segment, WhenStale};

/// The most providers, header mappings of one provider, and rules.
const PROVIDERS_MAX: usize = 16;
const MAPPINGS_MAX: usize = 32;
const RULES_MAX: usize = 256;
/// The longest configuration that is read, in bytes.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// Headers of this prefix are the filter's: stripped from every request whatever is configured.
pub const OWNED_PREFIX: &str = "x-tollgate-";
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

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose tokens are taken.
    pub providers: Vec<Provider>,
    /// The issuer that is polled; without it there is no feed, no revocation and no quota.
    pub origin: Option<Origin>,
    /// First match wins; no match refuses.
    pub rules: Vec<Rule>,
    /// Which headers tell a client how much it may still spend.
    pub ratelimit_headers: RatelimitHeaders,
    /// The `realm` of `WWW-Authenticate`.
    pub realm: String,
}

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

/// The issuer, as this edge sees it.
#[derive(Clone)]
pub struct Origin {
    /// The host's name for it: an Envoy cluster.
    pub cluster: String,
    /// The `:authority` of calls to it.
    pub authority: String,
    /// Who this edge is.
    pub edge_id: EdgeId,
    /// The secret that proves it; from the host's environment when `None`.
    pub credential: Option<String>,
    /// The feed's public key.
    pub trust_anchor: TrustAnchor,
    /// The time between polls when they are not held, in milliseconds.
    pub poll_interval_ms: u64,
    /// How long the issuer is asked to hold a poll, in seconds; 0 for plain polling.
    pub long_poll_seconds: u64,
    /// The age of state, in seconds, from which routes act by `when_stale`.
    pub stale_after_seconds: u64,
    /// The age of state, in seconds, from which protected routes refuse.
    pub refuse_after_seconds: u64,
}

/// Which headers tell a client how much it may still spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RatelimitHeaders {
    /// `RateLimit` and `RateLimit-Policy` of the IETF draft.
    Ietf,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`, which Envoy calls `DRAFT_VERSION_03`.
    Draft03,
    /// Both.
    Both,
    /// None.
    Off,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// The offending key, such as `rules[2].requires.scopes`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl ConfigError {
    fn at(path: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self { path: path.to_string(), message: message.to_string() }
    }
}

impl Config {
    /// Parses and checks a configuration in JSON.
    ///
    /// # Errors
    /// [`ConfigError`], with the path of the offending key.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        if json.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::at("configuration", "longer than 1 MiB"));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let raw: raw::Config = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            let path =
                if matches!(path.as_str(), "" | "." | "?") { "configuration".to_owned() } else { path };
            ConfigError::at(path, error.inner())
        })?;
        deserializer.end().map_err(|error| ConfigError::at("configuration", error))?;
        Self::check(raw)
    }

    fn check(raw: raw::Config) -> Result<Self, ConfigError> {
        let raw::Config { providers, origin, rules, ratelimit_headers, realm } = raw;
        let origin = origin.map(check_origin).transpose()?;
        if providers.is_empty() || providers.len() > PROVIDERS_MAX {
            return Err(ConfigError::at("providers", "needs 1 to 16 providers"));
        }
        let mut checked: Vec<Provider> = Vec::with_capacity(providers.len());
        for (place, provider) in providers.into_iter().enumerate() {
            let path = format!("providers[{place}]");
            let provider = check_provider(provider, &path, origin.is_some())?;
            if checked.iter().any(|known| known.name == provider.name) {
                return Err(ConfigError::at(format!("{path}.name"), "another provider has this name"));
            }
            if checked.iter().any(|known| known.rules.issuer == provider.rules.issuer) {
                return Err(ConfigError::at(format!("{path}.issuer"), "another provider has this issuer"));
            }
            let feeds = |provider: &Provider| matches!(provider.keys, KeySource::Feed);
            if feeds(&provider) && checked.iter().any(feeds) {
                return Err(ConfigError::at(
                    format!("{path}.keys"),
                    "only one provider can take its keys from the feed",
                ));
            }
            checked.push(provider);
        }
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(ConfigError::at(
                "rules",
                "needs 1 to 256 rules; without one every request is refused",
            ));
        }
        let rules = rules
            .into_iter()
            .enumerate()
            .map(|(place, rule)| Rule::check(rule, &format!("rules[{place}]"), origin.is_some()))
            .collect::<Result<_, _>>()?;
        let realm = realm.unwrap_or_else(|| "tollgate".to_owned());
        if realm.is_empty()
            || !realm.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
        {
            return Err(ConfigError::at("realm", "must be visible ASCII without quotes and backslashes"));
        }
        Ok(Self { providers: checked, origin, rules, ratelimit_headers: ratelimit_headers.into(), realm })
    }

    /// Every place a token may come in, each once.
    #[must_use]
    pub fn token_headers(&self) -> Vec<TokenHeader> {
        let mut headers: Vec<TokenHeader> = Vec::new();
        for header in self.providers.iter().flat_map(|provider| &provider.from_headers) {
            if !headers.contains(header) {
                headers.push(header.clone());
            }
        }
        headers
    }

    /// Every header, in lower case and beside those of [`OWNED_PREFIX`], by which this filter speaks to the application
    /// or the client, and which no client may therefore send.
    #[must_use]
    pub fn owned_headers(&self) -> Vec<String> {
        let claims = self.providers.iter().flat_map(|provider| {
            let mapped = provider.claim_to_headers.iter().map(|mapping| mapping.header.clone());
            mapped.chain(provider.forward_payload_header.clone())
        });
        let quota = [
            "ratelimit",
            "ratelimit-policy",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
        ];
        let mut names: Vec<String> = claims.chain(quota.map(str::to_owned)).collect();
        names.sort();
        names.dedup();
        names
    }
}

fn check_provider(raw: raw::Provider, path: &str, has_origin: bool) -> Result<Provider, ConfigError> {
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
    let is_feed = matches!(raw.keys, raw::Keys::Feed);
    let keys = match raw.keys {
        raw::Keys::Feed if has_origin => KeySource::Feed,
        raw::Keys::Feed => return Err(at("keys", "`feed` needs an `origin`")),
        raw::Keys::Inline(jwks) => {
            let (keys, ignored) = KeySet::from_jwks(jwks.as_bytes())
                .map_err(|error| at("keys.inline_jwks", &error.to_string()))?;
            KeySource::Inline(keys, ignored)
        }
    };
    let mut algorithms = Vec::new();
    for (place, name) in raw.algorithms.iter().enumerate() {
        let unknown = || at(&format!("algorithms[{place}]"), "is not one of EdDSA, ES256, RS256");
        algorithms.push(Algorithm::of(name).ok_or_else(unknown)?);
    }
    if algorithms.is_empty() {
        return Err(at("algorithms", "needs at least one of EdDSA, ES256, RS256"));
    }
    if raw.clock_skew_seconds > 300 {
        return Err(at("clock_skew_seconds", "must be at most 300"));
    }
    if raw.claim_to_headers.len() > MAPPINGS_MAX {
        return Err(at("claim_to_headers", "more than 32 mappings"));
    }
    let from_headers = check_token_headers(raw.from_headers, path)?;
    let mut claim_to_headers = Vec::new();
    for (place, mapping) in raw.claim_to_headers.into_iter().enumerate() {
        let path = format!("{path}.claim_to_headers[{place}]");
        if mapping.claim_name.is_empty() {
            return Err(ConfigError::at(format!("{path}.claim_name"), "must not be empty"));
        }
        let header = writable_header(&mapping.header_name, &format!("{path}.header_name"))?;
        if claim_to_headers.iter().any(|known: &ClaimHeader| known.header == header) {
            return Err(ConfigError::at(
                format!("{path}.header_name"),
                "another claim is written to this header",
            ));
        }
        claim_to_headers.push(ClaimHeader { claim: mapping.claim_name, header });
    }
    let forward_payload_header = raw
        .forward_payload_header
        .map(|name| writable_header(&name, &format!("{path}.forward_payload_header")))
        .transpose()?;
    let rules = TokenRules {
        issuer,
        audiences: raw.audiences,
        accept_access_token: types.contains(&raw::TokenType::AccessToken),
        accept_plain: types.contains(&raw::TokenType::Jwt),
        // Tokens of our own issuer always have a status; one without could not be revoked by index.
        require_status: is_feed,
        clock_skew_seconds: raw.clock_skew_seconds,
    };
    let forward = raw.forward;
    Ok(Provider {
        name: raw.name,
        rules,
        keys,
        algorithms,
        from_headers,
        claim_to_headers,
        forward_payload_header,
        forward,
    })
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

fn check_origin(raw: raw::Origin) -> Result<Origin, ConfigError> {
    let at = |key: &str, message: &str| ConfigError::at(format!("origin.{key}"), message);
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !visible(&raw.cluster) {
        return Err(at("cluster", "must name a cluster of the host"));
    }
    if !visible(&raw.authority) {
        return Err(at("authority", "must be a host, perhaps with a port"));
    }
    let edge_id = EdgeId::new(&raw.edge_id).ok_or_else(|| at("edge_id", "must be 1 to 255 bytes"))?;
    if raw.credential.as_deref().is_some_and(|credential| !visible(credential)) {
        return Err(at("credential", "must be visible ASCII"));
    }
    let trust_anchor = anchor(&raw.trust_anchor)
        .ok_or_else(|| at("trust_anchor", "is not an Ed25519 public key in base64 (32 bytes)"))?;
    if !(100..=60_000).contains(&raw.poll_interval_ms) {
        return Err(at("poll_interval_ms", "must be 100 to 60000"));
    }
    if raw.long_poll_seconds > 60 {
        return Err(at("long_poll_seconds", "must be 0 to 60"));
    }
    if raw.stale_after_seconds == 0 || raw.stale_after_seconds > raw.refuse_after_seconds {
        return Err(at("stale_after_seconds", "must be at least 1 and at most refuse_after_seconds"));
    }
    if raw.refuse_after_seconds > 86_400 {
        return Err(at("refuse_after_seconds", "must be at most 86400"));
    }
    if raw.stale_after_seconds <= raw.long_poll_seconds {
        return Err(at(
            "stale_after_seconds",
            "must be more than long_poll_seconds, or every held poll makes state stale",
        ));
    }
    Ok(Origin {
        cluster: raw.cluster,
        authority: raw.authority,
        edge_id,
        credential: raw.credential,
        trust_anchor,
        poll_interval_ms: raw.poll_interval_ms,
        long_poll_seconds: raw.long_poll_seconds,
        stale_after_seconds: raw.stale_after_seconds,
        refuse_after_seconds: raw.refuse_after_seconds,
    })
}

fn anchor(text: &str) -> Option<TrustAnchor> {
    let bytes = Base64UrlUnpadded::decode_vec(text).or_else(|_| Base64::decode_vec(text)).ok()?;
    TrustAnchor::new(&bytes.try_into().ok()?)
}

// The credential is a secret.
impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Origin")
            .field("cluster", &self.cluster)
            .field("edge_id", &self.edge_id)
            .finish_non_exhaustive()
    }
}

impl From<raw::RatelimitHeaders> for RatelimitHeaders {
    fn from(raw: raw::RatelimitHeaders) -> Self {
        match raw {
            raw::RatelimitHeaders::Ietf => Self::Ietf,
            raw::RatelimitHeaders::Draft03 => Self::Draft03,
            raw::RatelimitHeaders::Both => Self::Both,
            raw::RatelimitHeaders::Off => Self::Off,
        }
    }
}

#[cfg(test)]
mod tests;
