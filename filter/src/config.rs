//! Decides whether a filter configuration can be acted upon, and says which key is wrong when it cannot.
//!
//! *What comes in:* JSON from an operator (Envoy hands over its YAML as JSON). *What goes out:* a [`Config`] without a
//! question left open. *What is lost if this is wrong:* a misspelt `requires` opens a route, so whatever is not known
//! is refused.

mod provider;
mod raw;
mod rule;

use std::fmt;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use tollgate_shared::id::EdgeId;
use tollgate_shared::wire::feed::TrustAnchor;

pub use provider::{ClaimHeader, KeySource, Provider, RemoteJwks, TokenHeader};
pub use rule::{Access, Owner, PathMatch, QuotaCharge, Requirement, Rule, Segment, WhenStale};

/// The most providers and rules.
const PROVIDERS_MAX: usize = 16;
const RULES_MAX: usize = 256;
/// The longest configuration that is read, in bytes.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// Headers of this prefix are the filter's: stripped from every request whatever is configured.
pub const OWNED_PREFIX: &str = "x-tollgate-";
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
            let provider = Provider::check(provider, &path, origin.is_some())?;
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
