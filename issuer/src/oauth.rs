//! OAuth as this issuer speaks it: who a client is, what it may ask for, and how the answers look. Nothing here knows of
//! the store; what must be looked up is an argument.

pub mod assertion;
pub mod client_auth;
pub mod error;
pub mod form;
pub mod introspection;
pub mod metadata;
pub mod scope;
pub mod token_response;

use crate::client::Grant;
use error::{OAuthError, RequestFault};
use form::Form;

/// The grant that a token request is for (RFC 6749 sections 4.4.2 and 6).
///
/// # Errors
/// [`OAuthError::InvalidRequest`] when none is named, [`OAuthError::UnsupportedGrantType`] when it is none of ours.
pub fn requested_grant(form: &Form) -> Result<Grant, OAuthError> {
    let name = form.value("grant_type").ok_or(RequestFault::Missing("grant_type"))?;
    match Grant::of(name) {
        Some(grant @ (Grant::RefreshToken | Grant::ClientCredentials)) => Ok(grant),
        // A login is no OAuth grant: it has a route of its own.
        Some(Grant::Login) | None => Err(OAuthError::UnsupportedGrantType),
    }
}
