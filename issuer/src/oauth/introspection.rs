//! Decides what is told of a token to who may ask (RFC 7662 section 2.2): its members while it is in force, and otherwise
//! only that it is not.

use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{Claims, JsonValue};

use super::token_response::secret_json;

/// What there is to tell of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Introspection {
    /// It is unknown, over, revoked, or nothing that the asker may know of: nobody is told which.
    Inactive,
    /// It is in force.
    Active(Box<ActiveToken>),
}

/// What a token in force says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveToken {
    /// What kind it is.
    pub kind: TokenKind,
    /// `scope`
    pub scope: String,
    /// `client_id`
    pub client: Option<String>,
    /// `username`, of a user's token.
    pub username: Option<String>,
    /// `sub`
    pub subject: String,
    /// `aud`
    pub audiences: Vec<String>,
    /// `iss`
    pub issuer: String,
    /// `jti`; a refresh token has none, for its digest is nobody's business.
    pub token_id: Option<String>,
    /// `iat`
    pub issued_at: Option<UnixSeconds>,
    /// `nbf`
    pub not_before: Option<UnixSeconds>,
    /// `exp`
    pub expires_at: UnixSeconds,
    /// `sid`
    pub session: Option<String>,
    /// `tenant`
    pub tenant: Option<String>,
    /// `plan`
    pub plan: Option<String>,
    /// `roles`
    pub roles: Vec<String>,
}

/// The two kinds of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// An access token, which is presented as `Bearer`.
    Access,
    /// A refresh token, which is not presented to anyone but us and so has no `token_type`.
    Refresh,
}

impl ActiveToken {
    /// What the claims of an access token tell.
    #[must_use]
    pub fn of_claims(claims: &Claims, username: Option<String>) -> Self {
        let audiences = match claims.all.member("aud") {
            Some(JsonValue::List(names)) => names.iter().filter_map(JsonValue::text).collect(),
            other => other.and_then(JsonValue::text).into_iter().collect::<Vec<_>>(),
        };
        Self {
            kind: TokenKind::Access,
            scope: claims.scopes.join(" "),
            client: claims.client.as_ref().map(ToString::to_string),
            username,
            subject: claims.subject.to_string(),
            audiences: audiences.into_iter().map(str::to_owned).collect(),
            issuer: claims.issuer.to_string(),
            token_id: Some(claims.token_id.to_string()),
            issued_at: claims.issued_at,
            not_before: claims.not_before,
            expires_at: claims.expires_at,
            session: claims.session.as_ref().map(ToString::to_string),
            tenant: claims.tenant.as_ref().map(ToString::to_string),
            plan: claims.plan.as_ref().map(ToString::to_string),
            roles: claims.roles.clone(),
        }
    }

    fn to_json(&self) -> Value {
        let Self {
            kind,
            scope,
            client,
            username,
            subject,
            audiences,
            issuer,
            token_id,
            issued_at,
            not_before,
            expires_at,
            session,
            tenant,
            plan,
            roles,
        } = self;
        let token_type = match kind {
            TokenKind::Access => json!("Bearer"),
            TokenKind::Refresh => Value::Null,
        };
        let audience = match audiences.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        let unless_empty = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
        let members = [
            ("active", json!(true)),
            ("token_type", token_type),
            ("scope", if scope.is_empty() { Value::Null } else { json!(scope) }),
            ("client_id", json!(client)),
            ("username", json!(username)),
            ("sub", json!(subject)),
            ("aud", audience),
            ("iss", json!(issuer)),
            ("jti", json!(token_id)),
            ("iat", json!(issued_at.map(|date| date.0))),
            ("nbf", json!(not_before.map(|date| date.0))),
            ("exp", json!(expires_at.0)),
            ("sid", json!(session)),
            ("tenant", json!(tenant)),
            ("plan", json!(plan)),
            ("roles", unless_empty(roles)),
        ];
        let present = members.into_iter().filter(|(_, value)| !value.is_null());
        Value::Object(present.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
    }
}

impl Introspection {
    /// The answer's body.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Inactive => json!({ "active": false }),
            Self::Active(token) => token.to_json(),
        }
    }
}

impl IntoResponse for Introspection {
    fn into_response(self) -> Response {
        secret_json(&self.to_json())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use axum::http::{StatusCode, header};

    pub(crate) fn token() -> ActiveToken {
        ActiveToken {
            kind: TokenKind::Access,
            scope: "read".to_owned(),
            client: Some("c".to_owned()),
            username: Some("alice".to_owned()),
            subject: "u_1".to_owned(),
            audiences: vec!["api".to_owned()],
            issuer: "https://issuer.test".to_owned(),
            token_id: Some("j".to_owned()),
            issued_at: Some(UnixSeconds(10)),
            not_before: None,
            expires_at: UnixSeconds(20),
            session: Some("s_1".to_owned()),
            tenant: None,
            plan: Some("free".to_owned()),
            roles: vec!["member".to_owned()],
        }
    }

    #[test]
    fn of_an_inactive_token_nothing_else_is_told() {
        let answer = Introspection::Inactive.into_response();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(Introspection::Inactive.to_json(), json!({ "active": false }));
    }

    #[test]
    fn an_active_access_token_has_the_members_of_the_standard() {
        let expected = json!({
            "active": true, "token_type": "Bearer", "scope": "read", "client_id": "c", "username": "alice",
            "sub": "u_1", "aud": "api", "iss": "https://issuer.test", "jti": "j", "iat": 10, "exp": 20, "sid": "s_1",
            "plan": "free", "roles": ["member"],
        });
        assert_eq!(Introspection::Active(Box::new(token())).to_json(), expected);
    }

    #[test]
    fn what_is_absent_is_not_null() {
        let bare = ActiveToken {
            kind: TokenKind::Refresh,
            scope: String::new(),
            client: None,
            username: None,
            audiences: vec!["a".to_owned(), "b".to_owned()],
            token_id: None,
            issued_at: None,
            session: None,
            plan: None,
            roles: Vec::new(),
            ..token()
        };
        let expected = json!({
            "active": true, "sub": "u_1", "aud": ["a", "b"], "iss": "https://issuer.test", "exp": 20,
        });
        assert_eq!(Introspection::Active(Box::new(bare)).to_json(), expected);
    }
}
