//! Guards the headers by which the edge and the application speak: no client can send one of them, and what the client
//! is told of its quota follows the drafts by name.

use tollgate_shared::quota::ledger::Standing;

use super::credential::{self, Credential};
use super::denial::Denial;
use crate::config::{Config, OWNED_PREFIX, RatelimitHeaders, TokenHeader};

/// A header of a response.
pub type ResponseHeader = (&'static str, String);

/// A request as a host sees it. Names are compared without regard to case; values are any bytes.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'r> {
    /// `:method`
    pub method: &'r [u8],
    /// `:path`, as it will be forwarded.
    pub path: &'r [u8],
    /// All headers in order, duplicates apart.
    pub headers: &'r [(&'r [u8], &'r [u8])],
}

/// Fields that `Connection` may name without being removed: they frame the message, or are the host's to handle.
const NEVER_NOMINATED: [&[u8]; 9] = [
    b"close",
    b"keep-alive",
    b"upgrade",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"content-length",
    b"host",
    b"http2-settings",
];

/// What is known about headers from the configuration.
#[derive(Debug)]
pub(super) struct HeaderPolicy {
    owned: Vec<String>,
    sources: Vec<TokenHeader>,
    ratelimit: RatelimitHeaders,
}

impl HeaderPolicy {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            owned: config.owned_headers(),
            sources: config.token_headers(),
            ratelimit: config.ratelimit_headers,
        }
    }

    /// Whether only the filter may set this header. Underscores count as hyphens: CGI and its heirs cannot tell them
    /// apart.
    pub(super) fn is_owned(&self, name: &[u8]) -> bool {
        same_start(name, OWNED_PREFIX.as_bytes())
            || self.owned.iter().any(|owned| same_name(name, owned.as_bytes()))
    }

    /// The headers to remove: those that are ours, and those that `Connection` nominates (RFC 9110 section 7.6.1).
    pub(super) fn strip(&self, request: &RequestView<'_>) -> Vec<Vec<u8>> {
        let mut strip: Vec<Vec<u8>> = Vec::new();
        let nominated =
            |name: &[u8]| nominations(request).any(|nominated| nominated.eq_ignore_ascii_case(name));
        for (name, _) in request.headers {
            let pseudo = name.first() == Some(&b':');
            if !pseudo && (self.is_owned(name) || nominated(name)) && !strip.iter().any(|known| known == name)
            {
                strip.push(name.to_vec());
            }
        }
        strip
    }

    /// The one credential of a request, if it has any.
    pub(super) fn credential<'r>(&self, request: &RequestView<'r>) -> Result<Option<Credential<'r>>, Denial> {
        credential::find(&self.sources, request)
    }

    /// Whether the request brings anything that could be a credential.
    pub(super) fn carries_credential(&self, request: &RequestView<'_>) -> bool {
        !matches!(self.credential(request), Ok(None))
    }

    /// Where the client stands, in the headers that were asked for.
    pub(super) fn standing(&self, standings: &[(String, Standing)]) -> Vec<ResponseHeader> {
        let Some((_, tightest)) = standings.iter().min_by_key(|(_, standing)| standing.remaining) else {
            return Vec::new();
        };
        let mut headers = Vec::new();
        if matches!(self.ratelimit, RatelimitHeaders::Ietf | RatelimitHeaders::Both) {
            let join = |item: fn(&str, &Standing) -> String| {
                standings.iter().map(|(name, standing)| item(name, standing)).collect::<Vec<_>>().join(", ")
            };
            headers.push(("ratelimit-policy", join(policy_item)));
            headers.push(("ratelimit", join(limit_item)));
        }
        if matches!(self.ratelimit, RatelimitHeaders::Draft03 | RatelimitHeaders::Both) {
            headers.push(("x-ratelimit-limit", tightest.limit.to_string()));
            headers.push(("x-ratelimit-remaining", tightest.remaining.to_string()));
            headers.push(("x-ratelimit-reset", seconds_up(tightest.resets_in).to_string()));
        }
        headers
    }
}

/// `"api";q=100;w=3600` (draft-ietf-httpapi-ratelimit-headers section 3). Quota names are made so that they need no
/// escape in a structured-field string.
fn policy_item(name: &str, standing: &Standing) -> String {
    format!("\"{name}\";q={};w={}", standing.limit, standing.window_seconds)
}

/// `"api";r=50;t=30` (draft-ietf-httpapi-ratelimit-headers section 4).
fn limit_item(name: &str, standing: &Standing) -> String {
    format!("\"{name}\";r={};t={}", standing.remaining, seconds_up(standing.resets_in))
}

/// Milliseconds in whole seconds, rounded up: never earlier than it is.
pub(super) fn seconds_up(millis: u64) -> u64 {
    millis.div_ceil(1000)
}

fn nominations<'r>(request: &RequestView<'r>) -> impl Iterator<Item = &'r [u8]> {
    let connection = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"));
    let options = connection.flat_map(|(_, value)| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    options.filter(|option| !NEVER_NOMINATED.iter().any(|kept| kept.eq_ignore_ascii_case(option)))
}

fn folded(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

fn same_name(name: &[u8], owned: &[u8]) -> bool {
    name.len() == owned.len() && same_start(name, owned)
}

fn same_start(name: &[u8], owned: &[u8]) -> bool {
    name.len() >= owned.len() && name.iter().zip(owned).all(|(one, two)| folded(*one) == folded(*two))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_headers_are_known_in_every_spelling_that_an_application_may_read() {
        let config = serde_json::json!({
            "providers": [{
                "name": "home",
                "issuer": "https://i",
                "audiences": ["api"],
                "keys": "feed",
                "claim_to_headers": [{ "claim_name": "sub", "header_name": "x-user-id" }],
                "forward_payload_header": "x-payload",
            }],
            "origin": {
                "cluster": "issuer",
                "authority": "i",
                "edge_id": "e",
                "trust_anchor": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            },
            "rules": [{ "match": { "prefix": "/" }, "requires": "none" }],
        });
        let policy = HeaderPolicy::new(&Config::parse(config.to_string().as_bytes()).unwrap());
        for name in [
            "x-tollgate-subject",
            "X-Tollgate-Subject",
            "x_tollgate_subject",
            "X_TOLLGATE-anything",
            "x-tollgate-",
            "x-user-id",
            "X_User-ID",
            "x_user_id",
            "x-payload",
            "X_PAYLOAD",
            "ratelimit",
            "RateLimit_Policy",
            "x_ratelimit_limit",
        ] {
            assert!(policy.is_owned(name.as_bytes()), "{name} could be sent by a client");
        }
        for name in ["x-tollgat", "x-user-id2", "x-user", "authorization", "x-ratelimit"] {
            assert!(!policy.is_owned(name.as_bytes()), "{name} is the client's");
        }
    }
}
