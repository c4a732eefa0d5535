//! Decides what the issuer publishes of itself: RFC 8414 authorization server metadata, OpenID Connect Discovery, and
//! RFC 9728 protected resource metadata, each written once when it starts.

use axum::http::Uri;
use serde_json::{Value, json};
use tollgate_shared::id::IssuerId;
use tollgate_shared::token::Algorithm;

use super::assertion;
use crate::published::Published;

/// The URLs of the issuer's endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `POST /oauth2/token`
    pub token: String,
    /// `POST /oauth2/revoke`
    pub revocation: String,
    /// `POST /oauth2/introspect`
    pub introspection: String,
    /// `GET /.well-known/jwks.json`
    pub jwks: String,
    /// `GET /v1/status`
    pub status_lists: String,
}

/// What is published, and where from.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// Where the endpoints are.
    pub endpoints: Endpoints,
    /// RFC 8414.
    pub authorization_server: Published,
    /// OpenID Connect Discovery 1.0.
    pub openid_configuration: Published,
    /// RFC 9728, of the issuer's own API.
    pub protected_resource: Published,
    issuer: IssuerId,
    path: String,
}

/// How a client may authenticate where tokens are had, and where they are revoked: public clients have only their name.
const CLIENT_METHODS: [&str; 4] = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];
/// Who asks about tokens must have proved who it is.
const CONFIDENTIAL_METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];

impl Endpoints {
    /// The endpoints of this issuer.
    #[must_use]
    pub fn of(issuer: &IssuerId) -> Self {
        Self {
            token: format!("{issuer}/oauth2/token"),
            revocation: format!("{issuer}/oauth2/revoke"),
            introspection: format!("{issuer}/oauth2/introspect"),
            jwks: format!("{issuer}/.well-known/jwks.json"),
            status_lists: format!("{issuer}/v1/status"),
        }
    }
}

impl Metadata {
    /// The documents of an issuer that signs tokens with these algorithms.
    #[must_use]
    pub fn new(issuer: &IssuerId, signing: &[Algorithm]) -> Self {
        let endpoints = Endpoints::of(issuer);
        let server = authorization_server(issuer, &endpoints);
        let mut openid = server.clone();
        if let Some(members) = openid.as_object_mut() {
            let algorithms: Vec<_> = signing.iter().map(|algorithm| algorithm.name()).collect();
            members.insert("subject_types_supported".to_owned(), json!(["public"]));
            members.insert("id_token_signing_alg_values_supported".to_owned(), json!(algorithms));
        }
        let resource = json!({
            "resource": issuer.as_str(),
            "authorization_servers": [issuer.as_str()],
            "bearer_methods_supported": ["header"],
            "resource_name": "Tollgate",
        });
        let published = |document: &Value| Published::new("application/json", document.to_string());
        Self {
            authorization_server: published(&server),
            openid_configuration: published(&openid),
            protected_resource: published(&resource),
            endpoints,
            issuer: issuer.clone(),
            path: path_of(issuer).to_owned(),
        }
    }

    /// Who an assertion that is presented at `endpoint` may be meant for: the issuer by name, or one of the two URLs that
    /// clients put there.
    #[must_use]
    pub fn assertion_audiences<'m>(&'m self, endpoint: &'m str) -> [&'m str; 3] {
        [self.issuer.as_str(), &self.endpoints.token, endpoint]
    }

    /// Whether a request for `well_known` is for this issuer. A proxy in front may take the issuer's path away, so the bare
    /// form is right; RFC 8414 section 3.1 has the path at the end, and then it must be the issuer's.
    #[must_use]
    pub fn is_asked_for(&self, uri: &Uri, well_known: &str) -> bool {
        let rest = uri.path().strip_prefix(well_known);
        rest.is_some_and(|rest| rest.is_empty() || rest == self.path)
    }
}

fn authorization_server(issuer: &IssuerId, endpoints: &Endpoints) -> Value {
    let Endpoints { token, revocation, introspection, jwks, status_lists } = endpoints;
    json!({
        "issuer": issuer.as_str(),
        "jwks_uri": jwks,
        "token_endpoint": token,
        "token_endpoint_auth_methods_supported": CLIENT_METHODS,
        "token_endpoint_auth_signing_alg_values_supported": assertion::ALGORITHMS,
        "grant_types_supported": ["refresh_token", "client_credentials"],
        // Required, and empty: nothing here redirects a browser, so there is no authorization endpoint either.
        "response_types_supported": [],
        "revocation_endpoint": revocation,
        "revocation_endpoint_auth_methods_supported": CLIENT_METHODS,
        "revocation_endpoint_auth_signing_alg_values_supported": assertion::ALGORITHMS,
        "introspection_endpoint": introspection,
        "introspection_endpoint_auth_methods_supported": CONFIDENTIAL_METHODS,
        "introspection_endpoint_auth_signing_alg_values_supported": assertion::ALGORITHMS,
        "protected_resources": [issuer.as_str()],
        // Token Status List draft, section 9.2.
        "status_list_aggregation_endpoint": status_lists,
    })
}

/// The path of the issuer's URL, without a slash at its end.
fn path_of(issuer: &IssuerId) -> &str {
    let rest = issuer.as_str().split_once("://").map_or("", |(_, rest)| rest);
    rest.find('/').and_then(|start| rest.get(start..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(issuer: &str) -> Metadata {
        Metadata::new(&IssuerId::new(issuer).unwrap(), &[Algorithm::EdDsa, Algorithm::Es256])
    }

    fn json_of(document: &Published) -> Value {
        serde_json::from_str(document.body()).unwrap()
    }

    #[test]
    fn authorization_server_metadata_is_as_rfc_8414_has_it() {
        let expected = json!({
            "issuer": "https://issuer.test",
            "jwks_uri": "https://issuer.test/.well-known/jwks.json",
            "token_endpoint": "https://issuer.test/oauth2/token",
            "token_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
            "token_endpoint_auth_signing_alg_values_supported": ["EdDSA", "Ed25519", "ES256", "RS256"],
            "grant_types_supported": ["refresh_token", "client_credentials"],
            "response_types_supported": [],
            "revocation_endpoint": "https://issuer.test/oauth2/revoke",
            "revocation_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
            "revocation_endpoint_auth_signing_alg_values_supported": ["EdDSA", "Ed25519", "ES256", "RS256"],
            "introspection_endpoint": "https://issuer.test/oauth2/introspect",
            "introspection_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "private_key_jwt"],
            "introspection_endpoint_auth_signing_alg_values_supported": ["EdDSA", "Ed25519", "ES256", "RS256"],
            "protected_resources": ["https://issuer.test"],
            "status_list_aggregation_endpoint": "https://issuer.test/v1/status",
        });
        assert_eq!(json_of(&metadata("https://issuer.test").authorization_server), expected);
    }

    #[test]
    fn required_members_are_there() {
        let metadata = metadata("https://issuer.test/one/two");
        // RFC 8414 section 2; the authorization endpoint is required only of grants that use it.
        let server = ["issuer", "token_endpoint", "response_types_supported"];
        // OpenID Connect Discovery section 3, but for the authorization endpoint, of which the same is true.
        let openid =
            [&server[..], &["jwks_uri", "subject_types_supported", "id_token_signing_alg_values_supported"]]
                .concat();
        // RFC 9728 section 2.
        let resource = ["resource"];
        for (document, required) in [
            (&metadata.authorization_server, &server[..]),
            (&metadata.openid_configuration, &openid),
            (&metadata.protected_resource, &resource),
        ] {
            let document = json_of(document);
            for member in required {
                assert!(document.get(member).is_some(), "{member} in {document}");
            }
        }
        let openid = json_of(&metadata.openid_configuration);
        assert_eq!(openid["id_token_signing_alg_values_supported"], json!(["EdDSA", "ES256"]));
        assert_eq!(openid["issuer"], "https://issuer.test/one/two");
        // RFC 8414 section 2: with `private_key_jwt` its algorithms must be named, and `none` is none of them.
        let algorithms = openid["token_endpoint_auth_signing_alg_values_supported"].as_array().unwrap();
        assert!(!algorithms.is_empty() && !algorithms.contains(&json!("none")));
        let resource = json_of(&metadata.protected_resource);
        assert_eq!(resource["resource"], "https://issuer.test/one/two");
        assert_eq!(resource["authorization_servers"], json!(["https://issuer.test/one/two"]));
    }

    #[test]
    fn a_document_is_had_under_the_issuers_path_and_no_other() {
        const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";
        let cases = [
            ("https://issuer.test", "", true),
            ("https://issuer.test", "/one", false),
            ("https://issuer.test:8443/one", "", true),
            ("https://issuer.test:8443/one", "/one", true),
            ("https://issuer.test:8443/one", "/one/", false),
            ("https://issuer.test:8443/one", "/two", false),
            ("https://issuer.test:8443/one/two", "/one/two", true),
            ("https://issuer.test:8443/one/two", "/one", false),
            ("https://issuer.test/a%2Fb", "/a%2Fb", true),
            ("https://issuer.test/a%2Fb", "/a/b", false),
        ];
        for (issuer, path, expected) in cases {
            let uri: Uri = format!("{WELL_KNOWN}{path}").parse().unwrap();
            assert_eq!(metadata(issuer).is_asked_for(&uri, WELL_KNOWN), expected, "{issuer} {path}");
        }
    }
}
