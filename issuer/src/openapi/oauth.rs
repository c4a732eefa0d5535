//! What OAuth clients call.

use axum::http::Method;

use super::schemas::{IntrospectionSchema, OAuthTokensSchema, TokenFormSchema, TokenRequestSchema};
use super::{Description, describe};

#[rustfmt::skip]
pub(super) fn descriptions() -> Vec<Description> {
    vec![
        describe(Method::POST, "/oauth2/token", "token", "Get tokens (RFC 6749)")
            .takes_form::<TokenRequestSchema>().gives::<OAuthTokensSchema>(200).and(&[401, 503]),
        describe(Method::POST, "/oauth2/introspect", "introspect", "Ask about a token (RFC 7662)")
            .takes_form::<TokenFormSchema>().gives::<IntrospectionSchema>(200).and(&[401, 503]),
        describe(Method::POST, "/oauth2/revoke", "revokeToken", "Revoke a token (RFC 7009)")
            .takes_form::<TokenFormSchema>().gives_nothing(200),
    ]
}
