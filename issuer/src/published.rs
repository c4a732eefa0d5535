//! Decides how a document that anybody may read is sent: with an entity tag, once, and kept by caches for a while.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64ct::{Base64UrlUnpadded, Encoding};
use sha2::{Digest, Sha256};

/// How long a cache may keep a document of which nothing else is said.
const CACHE: &str = "public, max-age=300, stale-while-revalidate=60";

/// A document and its entity tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    media_type: &'static str,
    etag: String,
    body: String,
}

impl Published {
    /// The document with this text.
    #[must_use]
    pub fn new(media_type: &'static str, body: String) -> Self {
        Self { media_type, etag: entity_tag(body.as_bytes()), body }
    }

    /// Its text.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// The answer to a request with these headers.
    #[must_use]
    pub fn answer(&self, headers: &HeaderMap) -> Response {
        answer(headers, CACHE, self.media_type, &self.etag, || self.body.clone().into())
    }
}

/// The strong entity tag of this content, quoted (RFC 9110 section 8.8.3): the same bytes have the same tag on every
/// replica.
#[must_use]
pub fn entity_tag(content: &[u8]) -> String {
    format!("\"{}\"", Base64UrlUnpadded::encode_string(&Sha256::digest(content)))
}

/// The answer with this content, or that the client has it; caches may keep it for as long as `cache` says.
#[must_use]
pub fn answer(
    headers: &HeaderMap,
    cache: &str,
    media_type: &'static str,
    etag: &str,
    body: impl FnOnce() -> Body,
) -> Response {
    let caching = [(header::ETAG, etag), (header::CACHE_CONTROL, cache)];
    if is_known(headers, etag) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, media_type)], body()).into_response()
}

/// Whether the client has this entity already (RFC 9110 section 13.1.2, weak comparison).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let sent = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// The media ranges that a request names, in small letters, each with its weight (RFC 9110 section 12.5.1).
pub(crate) fn media_ranges(headers: &HeaderMap) -> Vec<(String, f32)> {
    let sent = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = sent.flat_map(|value| value.split(',')).map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
        (kind, weight)
    });
    ranges.filter(|(kind, _)| !kind.is_empty()).collect()
}

/// Whether who asks takes this media type. Who names none takes any; of those that cover it the narrowest counts.
#[must_use]
pub fn is_acceptable(headers: &HeaderMap, media_type: &str) -> bool {
    let ranges = media_ranges(headers);
    let family = media_type.split_once('/').map(|(family, _)| format!("{family}/*")).unwrap_or_default();
    let weight = |wanted: &str| ranges.iter().find(|(kind, _)| kind == wanted).map(|(_, weight)| *weight);
    let weight = weight(media_type).or_else(|| weight(&family)).or_else(|| weight("*/*"));
    weight.map_or(ranges.is_empty(), |weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_take_a_type_says_so() {
        let accept = |text: &str| {
            let headers = [(header::ACCEPT, text.parse().unwrap())].into_iter().collect();
            is_acceptable(&headers, "application/statuslist+jwt")
        };
        for takes in [
            "application/statuslist+jwt",
            "Application/StatusList+JWT",
            "text/html, application/statuslist+jwt;q=0.1",
            "*/*",
            "text/html, application/*;q=0.2",
            "application/statuslist+jwt, */*;q=0",
        ] {
            assert!(accept(takes), "{takes}");
        }
        for not in
            ["text/html", "application/statuslist+cwt", "*/*;q=0", "application/statuslist+jwt;q=0, */*"]
        {
            assert!(!accept(not), "{not}");
        }
        assert!(is_acceptable(&HeaderMap::new(), "application/statuslist+jwt"));
        assert!(accept(""), "an empty header names none");
    }

    fn status(sent: &[&str]) -> StatusCode {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(header::IF_NONE_MATCH, value.replace("TAG", &entity_tag(b"{}")).parse().unwrap());
        }
        Published::new("application/json", "{}".to_owned()).answer(&headers).status()
    }

    #[test]
    fn only_who_has_the_document_is_spared_it() {
        for known in [&["TAG"][..], &["W/TAG"], &["*"], &["\"a\", TAG"], &["\"a\",W/TAG"], &["\"a\"", "TAG"]]
        {
            assert_eq!(status(known), StatusCode::NOT_MODIFIED, "{known:?}");
        }
        for unknown in [&[][..], &["\"a\""], &["x"], &[""], &["w/TAG"], &["W/"]] {
            assert_eq!(status(unknown), StatusCode::OK, "{unknown:?}");
        }
    }

    #[test]
    fn a_tag_is_strong_and_changes_with_the_content() {
        let tag = entity_tag(b"{}");
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 45, "{tag}");
        assert_ne!(tag, entity_tag(b"{ }"));
        let answer = Published::new("application/json", "{}".to_owned()).answer(&HeaderMap::new());
        assert_eq!(answer.headers()[header::ETAG], tag);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], CACHE);
    }
}
