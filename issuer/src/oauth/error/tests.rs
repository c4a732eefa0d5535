use super::*;
use axum::body::to_bytes;

/// Every error, with what the standards ask of its answer: status, code, challenge, `Retry-After`.
#[tokio::test]
async fn every_error_is_answered_as_the_standards_say() {
    let table = [
        (OAuthError::InvalidRequest(RequestFault::Repeated), 400, "invalid_request", "", ""),
        (OAuthError::TooLarge, 413, "invalid_request", "", ""),
        (OAuthError::TooSlow, 408, "invalid_request", "", ""),
        (OAuthError::InvalidClient(Attempt::Nothing), 401, "invalid_client", "Basic", ""),
        (OAuthError::InvalidClient(Attempt::Basic), 401, "invalid_client", "Basic", ""),
        (OAuthError::InvalidClient(Attempt::Bearer), 401, "invalid_client", "Bearer", ""),
        (OAuthError::InvalidClient(Attempt::Form), 401, "invalid_client", "", ""),
        (OAuthError::InvalidGrant, 400, "invalid_grant", "", ""),
        (OAuthError::UnauthorizedClient, 400, "unauthorized_client", "", ""),
        (OAuthError::UnsupportedGrantType, 400, "unsupported_grant_type", "", ""),
        (OAuthError::InvalidScope, 400, "invalid_scope", "", ""),
        (OAuthError::TooManyRequests { retry_after_seconds: 7 }, 429, "temporarily_unavailable", "", "7"),
        (
            OAuthError::TemporarilyUnavailable { retry_after_seconds: 5 },
            503,
            "temporarily_unavailable",
            "",
            "5",
        ),
        (OAuthError::ServerError, 500, "server_error", "", ""),
    ];
    for (error, status, code, scheme, retry_after) in table {
        let answer = error.into_response();
        assert_eq!(answer.status(), status, "{error:?}");
        let headers = answer.headers().clone();
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
        assert_eq!(text(header::WWW_AUTHENTICATE).split(' ').next(), Some(scheme), "{error:?}");
        assert_eq!(text(header::RETRY_AFTER), retry_after, "{error:?}");
        assert_eq!(text(header::CACHE_CONTROL), "no-store", "{error:?}");
        assert_eq!(text(header::CONTENT_TYPE), "application/json", "{error:?}");
        let body = to_bytes(answer.into_body(), 1000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["error"], error.code()), (&json!(code), code));
        let described = matches!(error, OAuthError::InvalidRequest(_));
        assert_eq!(body.get("error_description").is_some(), described, "{error:?}");
    }
}

#[test]
fn descriptions_have_only_characters_that_they_may_have() {
    let faults = [
        RequestFault::MediaType,
        RequestFault::NotForm,
        RequestFault::TooManyParameters,
        RequestFault::Repeated,
        RequestFault::Missing("token"),
        RequestFault::Malformed("token"),
        RequestFault::SeveralMethods,
        RequestFault::SeveralHeaders,
        RequestFault::OtherClient,
        RequestFault::Value,
    ];
    for fault in faults {
        // RFC 6749 appendix A.8.
        let allowed = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        assert!(fault.to_string().bytes().all(allowed), "{fault}");
    }
}

#[test]
fn what_is_shared_with_the_rest_is_translated() {
    for (refusal, expected) in [
        (Refusal::Credential, OAuthError::InvalidClient(Attempt::Bearer)),
        (Refusal::Scope, OAuthError::InvalidScope),
        (Refusal::CredentialKind, OAuthError::UnauthorizedClient),
        (Refusal::TooLarge, OAuthError::TooLarge),
        (Refusal::BodyTimeout, OAuthError::TooSlow),
        (Refusal::Invalid("username: secret".to_owned()), OAuthError::InvalidRequest(RequestFault::Value)),
        (Refusal::Busy, OAuthError::TemporarilyUnavailable { retry_after_seconds: 2 }),
        (Refusal::Unavailable, OAuthError::TemporarilyUnavailable { retry_after_seconds: 5 }),
        (Refusal::Internal, OAuthError::ServerError),
    ] {
        assert_eq!(OAuthError::from(refusal), expected);
    }
}
