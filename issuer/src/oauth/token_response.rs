//! Writes the answer of the token endpoint (RFC 6749 section 5.1).

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use zeroize::Zeroizing;

use super::scope::Scopes;

/// A token, and what comes with it.
pub struct TokenResponse {
    /// The token.
    pub access_token: String,
    /// How long it lives, in seconds.
    pub expires_in: u64,
    /// What it is good for.
    pub scope: Scopes,
    /// What the next one is had for.
    pub refresh_token: Option<Zeroizing<String>>,
}

// Both tokens are credentials.
impl fmt::Debug for TokenResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access_token: _, expires_in, scope, refresh_token: _ } = self;
        formatter
            .debug_struct("TokenResponse")
            .field("expires_in", expires_in)
            .field("scope", scope)
            .finish_non_exhaustive()
    }
}

impl TokenResponse {
    /// Its members, for answers that say more than this one.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let Self { access_token, expires_in, scope, refresh_token } = self;
        let mut members = serde_json::Map::new();
        members.insert("access_token".to_owned(), json!(access_token));
        members.insert("token_type".to_owned(), json!("Bearer"));
        members.insert("expires_in".to_owned(), json!(expires_in));
        // The grammar of `scope` has no empty text (RFC 6749 section 3.3).
        if !scope.is_empty() {
            members.insert("scope".to_owned(), json!(scope.to_string()));
        }
        if let Some(refresh_token) = refresh_token {
            members.insert("refresh_token".to_owned(), json!(refresh_token.as_str()));
        }
        members
    }
}

impl IntoResponse for TokenResponse {
    fn into_response(self) -> Response {
        secret_json(&self.to_json().into())
    }
}

/// A JSON answer of `/oauth2/…` that nobody may keep.
pub(super) fn secret_json(body: &serde_json::Value) -> Response {
    let mut response = (StatusCode::OK, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(scope: &str, refresh_token: Option<&str>) -> TokenResponse {
        TokenResponse {
            access_token: "a.b.c".to_owned(),
            expires_in: 900,
            scope: Scopes::parse(scope).unwrap(),
            refresh_token: refresh_token.map(|token| Zeroizing::new(token.to_owned())),
        }
    }

    #[test]
    fn members_are_those_of_the_standard() {
        let all = serde_json::Value::from(response("read write", Some("tgr_1")).to_json());
        let expected = json!({
            "access_token": "a.b.c", "token_type": "Bearer", "expires_in": 900, "scope": "read write",
            "refresh_token": "tgr_1",
        });
        assert_eq!(all, expected);
        let least = serde_json::Value::from(response("", None).to_json());
        assert_eq!(least, json!({ "access_token": "a.b.c", "token_type": "Bearer", "expires_in": 900 }));
    }

    #[test]
    fn nobody_keeps_it_and_no_log_has_it() {
        let answer = response("read", Some("tgr_1")).into_response();
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers()[header::PRAGMA], "no-cache");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
        let shown = format!("{:?}", response("read", Some("tgr_1")));
        assert!(!shown.contains("a.b.c") && !shown.contains("tgr_1"), "{shown}");
    }
}
