use axum::http::HeaderValue;
use axum::response::IntoResponse;
use proptest::prelude::*;
use tollgate_shared::token::RustCrypto;

use super::*;
use crate::client::{ClientKeys, Grant, Grants, NewClientSecret};
use crate::clock::SystemHost;
use crate::oauth::assertion::tests::{AUDIENCES, CLIENT, ClientKey, NOW, claims, jwks};

fn headers(authorization: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in authorization {
        headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

fn basic(pair: impl AsRef<[u8]>) -> String {
    format!("Basic {}", Base64::encode_string(pair.as_ref()))
}

fn read(authorization: Option<&str>, form: &str) -> Result<PresentedClient, ClientAuthError> {
    let authorization: Vec<_> = authorization.iter().map(|value| value.as_bytes()).collect();
    PresentedClient::read(&headers(&authorization), &Form::parse(form.as_bytes()).unwrap())
}

fn fault(authorization: Option<&str>, form: &str) -> (Attempt, AuthFault) {
    let ClientAuthError { attempt, fault } = read(authorization, form).unwrap_err();
    (attempt, fault)
}

fn client(id: &str, auth: ClientAuthentication) -> Client {
    Client {
        id: client_id(id).unwrap(),
        auth,
        grants: Grants::of(&[Grant::ClientCredentials]),
        ..Client::first_party("free").unwrap()
    }
}

fn with_secrets(id: &str, count: usize) -> (Client, Vec<String>) {
    let secrets: Vec<_> =
        (0..count).map(|_| NewClientSecret::generate(&SystemHost::new()).unwrap()).collect();
    let kept = secrets.iter().map(|secret| secret.kept.clone()).collect();
    let texts = secrets.iter().map(|secret| secret.reveal().to_owned()).collect();
    (client(id, ClientAuthentication::Secret(kept)), texts)
}

fn verify<'c>(
    presented: &PresentedClient,
    client: Option<&'c Client>,
) -> Result<VerifiedClient<'c>, AuthFault> {
    presented.verify(client, NOW, &AUDIENCES, &RustCrypto).map_err(|error| error.fault)
}

fn method(verified: Result<VerifiedClient<'_>, AuthFault>) -> Result<ClientMethod, AuthFault> {
    verified.map(|verified| match verified {
        VerifiedClient::Now(client) => client.method(),
        VerifiedClient::OnceRecorded(client) => client.recorded(AssertionUse::First).unwrap().method(),
    })
}

#[test]
fn each_method_is_read() {
    let secret_of = |presented: &PresentedClient| match presented {
        PresentedClient::Basic { secret, .. } | PresentedClient::Post { secret, .. } => secret.to_string(),
        PresentedClient::Assertion(_) | PresentedClient::Public(_) => String::new(),
    };
    let encoded = basic("b%61tch:tgc%5Fx");
    let cases = [
        (Some(basic("batch:tgc_x")), "", Attempt::Basic, "tgc_x"),
        (Some(encoded), "client_id=batch", Attempt::Basic, "tgc_x"),
        (Some(basic("batch:a:b")), "", Attempt::Basic, "a:b"),
        (Some(basic("batch:a+b%2Bc")), "", Attempt::Basic, "a b+c"),
        (Some(basic("batch:")), "client_secret=", Attempt::Basic, ""),
        (Some(basic("batch:é")), "", Attempt::Basic, "é"),
        (Some(basic("batch:x").replace("Basic ", "bAsIc  ")), "", Attempt::Basic, "x"),
        (None, "client_id=batch&client_secret=tgc_x", Attempt::Form, "tgc_x"),
        (None, "client_id=batch&client_secret=", Attempt::Form, ""),
        (None, "client_id=batch", Attempt::Form, ""),
    ];
    for (authorization, form, attempt, secret) in cases {
        let presented = read(authorization.as_deref(), form).unwrap();
        assert_eq!(presented.id().as_str(), CLIENT, "{authorization:?} {form}");
        assert_eq!((presented.attempt(), secret_of(&presented).as_str()), (attempt, secret), "{form}");
        assert_eq!(format!("{presented:?}"), "PresentedClient { id: ClientId(\"batch\"), .. }");
    }
}

#[test]
fn a_credential_that_is_none_is_challenged() {
    let long = basic(format!("batch:{}", "x".repeat(SECRET_BYTES_MAX + 1)));
    let longer = basic(format!("batch:{}", "x".repeat(BASIC_BYTES_MAX)));
    for authorization in [
        "",
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic YmF0Y2g6eA",
        "Basic YmF0Y2g6eA==x",
        "Basic YmF0Y2g6eB==",
        "Bearer tgo_00000000_00000000000000000000000000000000",
        "Digest username=batch",
        &basic("batch"),
        &basic(":secret"),
        &basic("ba tch:x"),
        &basic("b%:x"),
        &basic("b%4:x"),
        &basic("batch:%zz"),
        &basic("batch:%ff"),
        &basic(b"batch:\xff"),
        &basic(b"b\xfftch:x"),
        &basic("batch%3Ax"),
        &long,
        &longer,
    ] {
        assert_eq!(fault(Some(authorization), ""), (Attempt::Basic, AuthFault::Header), "{authorization}");
    }
    let opaque = PresentedClient::read(&headers(&[b"Basic \xff"]), &Form::parse(b"").unwrap()).unwrap_err();
    assert_eq!(opaque.fault, AuthFault::Header);
    let answer = OAuthError::from(opaque).into_response();
    assert_eq!(answer.status(), 401);
    assert!(answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic "));
}

#[test]
fn two_methods_or_two_names_are_one_too_many() {
    let header = basic("batch:x");
    let header = Some(header.as_str());
    let several = |attempt| (attempt, AuthFault::Request(RequestFault::SeveralMethods));
    let assertion = format!("client_assertion_type={ASSERTION_TYPE}&client_assertion=a.b.c");
    assert_eq!(fault(header, "client_id=batch&client_secret=x"), several(Attempt::Basic));
    assert_eq!(fault(header, "client_secret=x"), several(Attempt::Basic));
    assert_eq!(fault(header, &assertion), several(Attempt::Basic));
    assert_eq!(fault(header, "client_assertion=a.b.c"), several(Attempt::Basic));
    assert_eq!(fault(None, &format!("client_id=batch&client_secret=x&{assertion}")), several(Attempt::Form));
    let other = (Attempt::Basic, AuthFault::Request(RequestFault::OtherClient));
    assert_eq!(fault(header, "client_id=other"), other);
    let twice = headers(&[b"Basic YmF0Y2g6eA==", b"Basic YmF0Y2g6eA=="]);
    let twice = PresentedClient::read(&twice, &Form::parse(b"").unwrap()).unwrap_err();
    assert_eq!(OAuthError::from(twice), OAuthError::InvalidRequest(RequestFault::SeveralHeaders));
}

#[test]
fn a_form_that_says_too_little_is_told_what_is_missing() {
    let missing = |name| (Attempt::Form, AuthFault::Request(RequestFault::Missing(name)));
    assert_eq!(fault(None, ""), (Attempt::Nothing, AuthFault::Nothing));
    assert_eq!(fault(None, "client_id="), (Attempt::Nothing, AuthFault::Nothing));
    assert_eq!(fault(None, "client_secret=x"), missing("client_id"));
    assert_eq!(fault(None, "client_assertion=a.b.c"), missing("client_assertion_type"));
    assert_eq!(fault(None, &format!("client_assertion_type={ASSERTION_TYPE}")), missing("client_assertion"));
    assert_eq!(
        fault(None, "client_assertion=a.b.c&client_assertion_type=saml"),
        (Attempt::Form, AuthFault::Request(RequestFault::Malformed("client_assertion_type")))
    );
    for form in ["client_id=a%20b", "client_id=%00", "client_id=a%20b&client_secret=x"] {
        assert_eq!(fault(None, form), (Attempt::Form, AuthFault::Unknown), "{form}");
    }
    let long = format!("client_id=batch&client_secret={}", "x".repeat(SECRET_BYTES_MAX + 1));
    assert_eq!(fault(None, &long), (Attempt::Form, AuthFault::Secret));
}

#[test]
fn any_of_a_clients_secrets_proves_it_and_nothing_else() {
    for count in 1..=SECRETS_MAX {
        let (batch, secrets) = with_secrets(CLIENT, count);
        for secret in &secrets {
            let by_header = read(Some(&basic(format!("batch:{secret}"))), "").unwrap();
            assert_eq!(method(verify(&by_header, Some(&batch))), Ok(ClientMethod::Basic));
            let by_form = read(None, &format!("client_id=batch&client_secret={secret}")).unwrap();
            assert_eq!(method(verify(&by_form, Some(&batch))), Ok(ClientMethod::Post));
            assert_eq!(method(verify(&by_form, None)), Err(AuthFault::Unknown));
        }
        let (other, _) = with_secrets("other", 1);
        let mut last = secrets[0].clone();
        last.pop();
        let mut wrong = vec![String::new(), last, format!("{}x", secrets[0]), "tgc_".to_owned()];
        wrong.extend(secrets[0].split('_').map(str::to_owned));
        for secret in wrong {
            let presented = read(Some(&basic(format!("batch:{secret}"))), "").unwrap();
            assert_eq!(method(verify(&presented, Some(&batch))), Err(AuthFault::Secret), "{secret}");
        }
        // A look-up that gave another client gave none.
        let presented = read(Some(&basic(format!("batch:{}", secrets[0]))), "").unwrap();
        assert_eq!(method(verify(&presented, Some(&other))), Err(AuthFault::Unknown));
        let disabled = Client { disabled: true, ..batch };
        assert_eq!(method(verify(&presented, Some(&disabled))), Err(AuthFault::Disabled));
    }
}

#[test]
fn a_digest_of_nobody_is_no_digest() {
    let zero = SecretDigest::from_bytes(&[0; 32]).unwrap();
    assert!(!is_one_of(&[], &zero));
    assert!(!is_one_of(&with_secret_list(1), &zero));
}

fn with_secret_list(count: usize) -> Vec<ClientSecret> {
    match with_secrets(CLIENT, count).0.auth {
        ClientAuthentication::Secret(secrets) => secrets,
        ClientAuthentication::None | ClientAuthentication::PrivateKeyJwt(_) => Vec::new(),
    }
}

#[test]
fn a_client_authenticates_in_its_own_way_only() {
    let key = ClientKey::ed25519("ed");
    let keys = ClientKeys::from_jwks(&jwks(&[&key])).unwrap();
    let by_key = client(CLIENT, ClientAuthentication::PrivateKeyJwt(keys));
    let public = client(CLIENT, ClientAuthentication::None);
    let (by_secret, secrets) = with_secrets(CLIENT, 1);
    let assertion = format!(
        "client_id=batch&client_assertion_type={ASSERTION_TYPE}&client_assertion={}",
        key.token(&claims())
    );
    let presented = [
        read(None, "client_id=batch").unwrap(),
        read(Some(&basic(format!("batch:{}", secrets[0]))), "").unwrap(),
        read(None, &assertion).unwrap(),
        read(Some(&basic("batch:")), "").unwrap(),
    ];
    let right = [
        [Ok(ClientMethod::None), Err(AuthFault::Method), Err(AuthFault::Method), Err(AuthFault::Method)],
        [Err(AuthFault::Method), Ok(ClientMethod::Basic), Err(AuthFault::Method), Err(AuthFault::Secret)],
        [
            Err(AuthFault::Method),
            Err(AuthFault::Method),
            Ok(ClientMethod::PrivateKeyJwt),
            Err(AuthFault::Method),
        ],
    ];
    for (client, expected) in [&public, &by_secret, &by_key].into_iter().zip(right) {
        for (presented, expected) in presented.iter().zip(expected) {
            assert_eq!(method(verify(presented, Some(client))), expected, "{presented:?} {client:?}");
        }
        let disabled = Client { disabled: true, ..client.clone() };
        for presented in &presented {
            assert!(verify(presented, Some(&disabled)).is_err(), "{presented:?}");
            assert_eq!(method(verify(presented, None)), Err(AuthFault::Unknown));
        }
    }
}

#[test]
fn an_assertion_counts_once_it_is_recorded() {
    let key = ClientKey::ed25519("ed");
    let by_key =
        client(CLIENT, ClientAuthentication::PrivateKeyJwt(ClientKeys::from_jwks(&jwks(&[&key])).unwrap()));
    let form = format!("client_assertion_type={ASSERTION_TYPE}&client_assertion={}", key.token(&claims()));
    // The assertion names the client; the form need not, but must not name another.
    let other = (Attempt::Form, AuthFault::Request(RequestFault::OtherClient));
    assert_eq!(fault(None, &format!("{form}&client_id=other")), other);
    let presented = read(None, &form).unwrap();
    let unrecorded = |presented: &PresentedClient| match verify(presented, Some(&by_key)).unwrap() {
        VerifiedClient::OnceRecorded(client) => client,
        VerifiedClient::Now(client) => panic!("{client:?}"),
    };
    let first = unrecorded(&presented);
    let again = unrecorded(&presented);
    assert_eq!(first.used(), again.used());
    let authenticated = first.recorded(AssertionUse::First).unwrap();
    assert_eq!(authenticated.client().id.as_str(), CLIENT);
    let replayed = again.recorded(AssertionUse::Repeated).unwrap_err();
    assert_eq!(replayed.fault, AuthFault::Replayed);
    assert_eq!(OAuthError::from(replayed), OAuthError::InvalidClient(Attempt::Form));
    let wrong = read(None, &form).unwrap().verify(Some(&by_key), NOW, &["https://other.test"], &RustCrypto);
    assert_eq!(wrong.unwrap_err().fault, AuthFault::Assertion(AssertionFault::Audience));
}

#[test]
fn a_token_request_names_a_grant_of_oauth() {
    let grant = |form: &str| crate::oauth::requested_grant(&Form::parse(form.as_bytes()).unwrap());
    assert_eq!(grant("grant_type=refresh_token"), Ok(Grant::RefreshToken));
    assert_eq!(grant("grant_type=client_credentials"), Ok(Grant::ClientCredentials));
    for form in ["", "grant_type="] {
        assert_eq!(grant(form), Err(OAuthError::InvalidRequest(RequestFault::Missing("grant_type"))));
    }
    for name in ["login", "password", "authorization_code", "REFRESH_TOKEN", "implicit"] {
        assert_eq!(grant(&format!("grant_type={name}")), Err(OAuthError::UnsupportedGrantType), "{name}");
    }
}

proptest! {
    #[test]
    fn no_header_and_no_form_make_it_panic(
        header in proptest::collection::vec(32u8..=255, 0..60),
        form in "(client_(id|secret|assertion|assertion_type)=[a-z.%0-9]{0,9}&?){0,4}",
    ) {
        if let (Ok(value), Ok(form)) = (HeaderValue::from_bytes(&header), Form::parse(form.as_bytes())) {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value);
            let _ = PresentedClient::read(&headers, &form);
            let _ = PresentedClient::read(&HeaderMap::new(), &form);
        }
    }

    #[test]
    fn what_is_encoded_or_not_is_the_same_credential(secret in "tgc_[0-9A-Za-z]{8}_[0-9A-Za-z]{32}") {
        let encoded: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for secret_sent in [&secret, &encoded] {
            let presented = read(Some(&basic(format!("batch:{secret_sent}"))), "").unwrap();
            let PresentedClient::Basic { secret: read, .. } = presented else { panic!() };
            prop_assert_eq!(read.as_str(), secret.as_str());
        }
    }
}
