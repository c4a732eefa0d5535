//! The configuration as it is written: shapes and defaults, and nothing that is not known.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub providers: Vec<Provider>,
    pub origin: Option<Origin>,
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub ratelimit_headers: RatelimitHeaders,
    pub realm: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    pub name: String,
    pub issuer: String,
    pub audiences: Vec<String>,
    pub keys: Keys,
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<String>,
    pub token_types: Option<Vec<TokenType>>,
    #[serde(default = "default_skew")]
    pub clock_skew_seconds: u64,
    #[serde(default = "default_from_headers")]
    pub from_headers: Vec<FromHeader>,
    #[serde(default)]
    pub claim_to_headers: Vec<ClaimToHeader>,
    pub forward_payload_header: Option<String>,
    #[serde(default)]
    pub forward: bool,
}

#[derive(Deserialize, PartialEq, Eq)]
pub(super) enum TokenType {
    #[serde(rename = "at+jwt")]
    AccessToken,
    #[serde(rename = "JWT")]
    Jwt,
}

pub(super) enum Keys {
    Feed,
    Inline(String),
    Remote(RemoteJwks),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoteJwks {
    pub cluster: String,
    pub uri: String,
    #[serde(default = "default_cache_seconds")]
    pub cache_seconds: u64,
    #[serde(default = "default_refuse_keys_after")]
    pub refuse_after_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FromHeader {
    pub name: String,
    #[serde(default)]
    pub value_prefix: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimToHeader {
    pub claim_name: String,
    pub header_name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    pub cluster: String,
    pub authority: String,
    pub edge_id: String,
    pub credential: Option<String>,
    pub trust_anchor: String,
    #[serde(default = "default_poll_interval")]
    pub poll_interval_ms: u64,
    #[serde(default = "default_long_poll")]
    pub long_poll_seconds: u64,
    #[serde(default = "default_stale_after")]
    pub stale_after_seconds: u64,
    #[serde(default = "default_refuse_after")]
    pub refuse_after_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(rename = "match")]
    pub matches: Match,
    pub requires: Requires,
    #[serde(default)]
    pub quotas: Vec<Quota>,
    pub when_stale: Option<WhenStale>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    pub path: Option<String>,
    pub prefix: Option<String>,
    pub template: Option<String>,
    pub methods: Option<Vec<String>>,
}

pub(super) enum Requires {
    None,
    Optional,
    Token(Requirement),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Requirement {
    #[serde(default)]
    pub scopes: Vec<String>,
    #[serde(default)]
    pub roles: Vec<String>,
    pub owner: Option<Owner>,
    pub unless_role: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Owner {
    Subject,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quota {
    pub name: String,
    #[serde(default = "default_cost")]
    pub cost: u64,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum WhenStale {
    Deny,
    Grace,
    Anonymous,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub(super) enum RatelimitHeaders {
    #[default]
    Ietf,
    Draft03,
    Both,
    Off,
}

// The two unions below are read by hand, because serde's untagged enums lose the path of the offending key.

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Source {
            InlineJwks(String),
            RemoteJwks(RemoteJwks),
        }

        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`feed`, { inline_jwks: \"…\" } or { remote_jwks: { cluster, uri } }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Keys, E> {
                if text == "feed" { Ok(Keys::Feed) } else { Err(E::unknown_variant(text, &["feed"])) }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Keys, A::Error> {
                Source::deserialize(MapAccessDeserializer::new(map)).map(|source| match source {
                    Source::InlineJwks(jwks) => Keys::Inline(jwks),
                    Source::RemoteJwks(remote) => Keys::Remote(remote),
                })
            }
        }
        deserializer.deserialize_any(KeysVisitor)
    }
}

impl<'de> Deserialize<'de> for Requires {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RequiresVisitor;
        impl<'de> Visitor<'de> for RequiresVisitor {
            type Value = Requires;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("`none`, `optional`, `token` or { scopes, roles, owner, unless_role }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Requires, E> {
                match text {
                    "none" => Ok(Requires::None),
                    "optional" => Ok(Requires::Optional),
                    "token" => Ok(Requires::Token(Requirement::default())),
                    _ => Err(E::unknown_variant(text, &["none", "optional", "token"])),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Requires, A::Error> {
                Requirement::deserialize(MapAccessDeserializer::new(map)).map(Requires::Token)
            }
        }
        deserializer.deserialize_any(RequiresVisitor)
    }
}

fn default_algorithms() -> Vec<String> {
    ["EdDSA", "ES256", "RS256"].map(str::to_owned).to_vec()
}

fn default_skew() -> u64 {
    60
}

fn default_from_headers() -> Vec<FromHeader> {
    vec![FromHeader { name: "authorization".to_owned(), value_prefix: "Bearer ".to_owned() }]
}

fn default_poll_interval() -> u64 {
    1000
}

fn default_long_poll() -> u64 {
    20
}

fn default_stale_after() -> u64 {
    30
}

fn default_refuse_after() -> u64 {
    300
}

fn default_cache_seconds() -> u64 {
    300
}

fn default_refuse_keys_after() -> u64 {
    3_600
}

fn default_cost() -> u64 {
    1
}
