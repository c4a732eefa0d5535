//! Shapes that are not those of one type in the program.
#![expect(dead_code, reason = "the members are read by whoever reads the document")]

use serde_json::Value;
use utoipa::ToSchema;

/// Why a request is not answered as it wished (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemSchema {
    r#type: String,
    title: String,
    status: u16,
    /// Which value is wrong. It never repeats the value.
    #[schema(required = false)]
    detail: String,
}

/// Why a request of a client is not answered as it wished (RFC 6749 section 5.2).
#[derive(ToSchema)]
#[schema(as = OAuthError)]
pub(super) struct OAuthErrorSchema {
    error: String,
    #[schema(required = false)]
    error_description: String,
}

/// Who logs in.
#[derive(serde::Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login)]
pub(super) struct LoginSchema {
    /// At most 255 bytes.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    username: String,
    /// At most 1024 bytes.
    #[schema(min_length = 8, max_length = 1024, format = Password)]
    password: String,
    /// `first-party` when missing.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    client_id: Option<String>,
    /// Everything that the user may ask for when missing.
    #[schema(max_length = 4096)]
    scope: Option<String>,
    /// What an earlier login gave as `device_token`, or what the client calls its device.
    #[schema(min_length = 1, max_length = 255, pattern = r"^[^\x00-\x1f\x7f-\x9f]+$")]
    device: Option<String>,
}

/// Tokens of a person.
#[derive(ToSchema)]
#[schema(as = Tokens)]
pub(super) struct TokensSchema {
    access_token: String,
    token_type: String,
    expires_in: u64,
    scope: String,
    refresh_token: String,
    device_token: String,
    #[schema(inline)]
    user: TokenUserSchema,
}

/// Whose tokens they are.
#[derive(ToSchema)]
#[schema(as = TokenUser)]
pub(super) struct TokenUserSchema {
    id: String,
    username: String,
    plan: String,
}

/// A session of the caller.
#[derive(ToSchema)]
#[schema(as = OwnSession)]
pub(super) struct OwnSessionSchema {
    id: String,
}

/// The caller's sessions.
#[derive(ToSchema)]
#[schema(as = OwnSessions)]
pub(super) struct OwnSessionsSchema {
    sessions: Vec<OwnSessionSchema>,
}

/// What a client asks for.
#[derive(ToSchema)]
#[schema(as = TokenRequest)]
pub(super) struct TokenRequestSchema {
    /// `refresh_token` or `client_credentials`.
    grant_type: String,
    refresh_token: Option<String>,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    client_assertion_type: Option<String>,
    client_assertion: Option<String>,
}

/// Which token is meant.
#[derive(ToSchema)]
#[schema(as = TokenForm)]
pub(super) struct TokenFormSchema {
    #[schema(min_length = 1)]
    token: String,
    token_type_hint: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    client_assertion_type: Option<String>,
    client_assertion: Option<String>,
}

/// Tokens of a client (RFC 6749 section 5.1).
#[derive(ToSchema)]
#[schema(as = OAuthTokens)]
pub(super) struct OAuthTokensSchema {
    access_token: String,
    token_type: String,
    expires_in: u64,
    scope: String,
    /// Only with `refresh_token`.
    #[schema(required = false)]
    refresh_token: String,
}

/// What there is to say of a token (RFC 7662); nothing else when it is not active.
#[derive(ToSchema)]
#[schema(as = Introspection)]
pub(super) struct IntrospectionSchema {
    active: bool,
}

/// What an edge used and wants.
#[derive(ToSchema)]
#[schema(as = QuotaBatch)]
pub(super) struct QuotaBatchSchema {
    #[schema(min_length = 1, max_length = 255)]
    edge: String,
    #[schema(min_length = 1, max_length = 255)]
    epoch: String,
    sequence: u64,
    #[schema(required = false)]
    usage: Vec<Value>,
    #[schema(required = false)]
    wants: Vec<Value>,
    #[schema(required = false)]
    returns: Vec<Value>,
}

/// What the edge gets.
#[derive(ToSchema)]
#[schema(as = QuotaAnswer)]
pub(super) struct QuotaAnswerSchema {
    grants: Vec<Value>,
    refusals: Vec<Value>,
}
