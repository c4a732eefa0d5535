//! Shapes that are not those of one type in the program.
#![expect(dead_code, reason = "the members are read by whoever reads the document")]

use std::borrow::Cow;

use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

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

/// Where the status lists are.
#[derive(ToSchema)]
#[schema(as = StatusLists)]
pub(super) struct StatusListsSchema {
    status_lists: Vec<String>,
}

/// What a client may do.
#[derive(ToSchema)]
#[schema(as = Grant)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientGrantSchema {
    Login,
    RefreshToken,
    ClientCredentials,
}

/// For what tokens are had at the token endpoint.
#[derive(ToSchema)]
#[schema(as = TokenGrant)]
#[serde(rename_all = "snake_case")]
enum TokenGrantSchema {
    RefreshToken,
    ClientCredentials,
}

/// What a client asks for.
#[derive(ToSchema)]
#[schema(as = TokenRequest)]
pub(super) struct TokenRequestSchema {
    #[schema(inline)]
    grant_type: TokenGrantSchema,
    /// Only with the grant of this name.
    #[schema(required = false)]
    refresh_token: String,
    /// Everything that can be had when missing.
    #[schema(required = false)]
    scope: String,
    #[schema(required = false)]
    client_id: String,
    #[schema(required = false)]
    client_secret: String,
    #[schema(required = false)]
    client_assertion_type: String,
    #[schema(required = false)]
    client_assertion: String,
}

/// Which token is meant.
#[derive(ToSchema)]
#[schema(as = TokenForm)]
pub(super) struct TokenFormSchema {
    #[schema(min_length = 1)]
    token: String,
    #[schema(required = false)]
    token_type_hint: String,
    #[schema(required = false)]
    client_id: String,
    #[schema(required = false)]
    client_secret: String,
    #[schema(required = false)]
    client_assertion_type: String,
    #[schema(required = false)]
    client_assertion: String,
}

/// Tokens of a client (RFC 6749 section 5.1).
#[derive(ToSchema)]
#[schema(as = OAuthTokens)]
pub(super) struct OAuthTokensSchema {
    access_token: String,
    /// `Bearer`
    token_type: String,
    /// For how long `access_token` is good, in seconds.
    expires_in: u64,
    /// Not there when the token is good for nothing in particular.
    #[schema(required = false)]
    scope: String,
    /// Only with the grant `refresh_token`.
    #[schema(required = false)]
    refresh_token: String,
}

/// What there is to say of a token (RFC 7662); nothing but `active` when it is not in force.
#[derive(ToSchema)]
#[schema(as = Introspection)]
pub(super) struct IntrospectionSchema {
    active: bool,
    /// `Bearer`, of an access token.
    #[schema(required = false)]
    token_type: String,
    #[schema(required = false)]
    scope: String,
    #[schema(required = false)]
    client_id: String,
    #[schema(required = false)]
    username: String,
    #[schema(required = false)]
    sub: String,
    #[schema(required = false, inline)]
    aud: AudienceSchema,
    #[schema(required = false)]
    iss: String,
    #[schema(required = false)]
    jti: String,
    #[schema(required = false)]
    iat: u64,
    #[schema(required = false)]
    nbf: u64,
    #[schema(required = false)]
    exp: u64,
    /// The session.
    #[schema(required = false)]
    sid: String,
    #[schema(required = false)]
    tenant: String,
    #[schema(required = false)]
    plan: String,
    #[schema(required = false)]
    roles: Vec<String>,
}

/// One audience as text, several as a list.
#[derive(ToSchema)]
#[schema(as = Audience)]
#[serde(untagged)]
enum AudienceSchema {
    One(String),
    Several(Vec<String>),
}

/// What is counted together: names and values, such as `{"quota": "api", "subject": "u_1"}`.
struct BucketSchema;

impl utoipa::PartialSchema for BucketSchema {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(510));
        let names =
            ObjectBuilder::new().schema_type(Type::Object).min_properties(Some(1)).max_properties(Some(8));
        names
            .additional_properties(Some(value))
            .description(Some("What is counted together: names and values"))
            .into()
    }
}

impl ToSchema for BucketSchema {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("QuotaBucket")
    }
}

/// What an edge used and wants. It is applied once for each `edge`, `epoch` and `sequence`.
#[derive(ToSchema)]
#[schema(as = QuotaBatch)]
pub(super) struct QuotaBatchSchema {
    /// The edge that the credential is of.
    #[schema(min_length = 1, max_length = 255)]
    edge: String,
    /// Drawn when the edge started.
    #[schema(min_length = 1, max_length = 255)]
    epoch: String,
    /// One more with each batch that was answered.
    sequence: u64,
    #[schema(required = false, max_items = 1000)]
    usage: Vec<UsageSchema>,
    #[schema(required = false, max_items = 1000)]
    wants: Vec<WantSchema>,
    #[schema(required = false, max_items = 1000)]
    returns: Vec<ReturnSchema>,
}

/// Units spent and refused in one window.
#[derive(ToSchema)]
#[schema(as = QuotaUsage)]
struct UsageSchema {
    bucket: BucketSchema,
    /// When the window began, in seconds since 1970.
    window: u64,
    allowed: u64,
    denied: u64,
}

/// A wish for units.
#[derive(ToSchema)]
#[schema(as = QuotaWant)]
struct WantSchema {
    bucket: BucketSchema,
    units: u64,
    /// How many it still holds.
    held: u64,
    /// Fewer are of no use; 1 when missing.
    #[schema(required = false)]
    least: u64,
}

/// Units of a lease that ended unspent.
#[derive(ToSchema)]
#[schema(as = QuotaReturn)]
struct ReturnSchema {
    bucket: BucketSchema,
    /// When the window began, in seconds since 1970.
    window: u64,
    units: u64,
}

/// What the edge gets.
#[derive(ToSchema)]
#[schema(as = QuotaAnswer)]
pub(super) struct QuotaAnswerSchema {
    grants: Vec<GrantSchema>,
    refusals: Vec<WishRefusedSchema>,
}

/// A lease.
#[derive(ToSchema)]
#[schema(as = QuotaGrant)]
struct GrantSchema {
    bucket: BucketSchema,
    /// When the window began, in seconds since 1970.
    window: u64,
    units: u64,
    /// For how many milliseconds, counted by the edge from when it asked.
    expires_in: u64,
    /// Units of the limit not yet given to anyone.
    remaining: u64,
    /// Milliseconds until the window ends.
    resets_in: u64,
    limit: u64,
    window_seconds: u64,
}

/// A wish that was not granted.
#[derive(ToSchema)]
#[schema(as = QuotaRefusal)]
struct WishRefusedSchema {
    bucket: BucketSchema,
    /// When the window began, in seconds since 1970.
    window: u64,
    /// Milliseconds until the window ends.
    resets_in: u64,
    /// Milliseconds after which asking again may help.
    ask_again_in: u64,
    limit: u64,
    window_seconds: u64,
}
