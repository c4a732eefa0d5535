use tollgate_shared::id::{IssuerId, PlanName};
use tollgate_shared::quota::Plan;

use super::*;
use crate::clock::SystemHost;
use crate::credential::SecretDigest;
use crate::oauth::assertion::tests::{ClientKey, jwks};

fn plans() -> PlanBook {
    let free = PlanName::new("free").unwrap();
    let plan = Plan::new(free.clone(), 10, 60).unwrap();
    PlanBook::new(IssuerId::new("https://issuer.test").unwrap(), vec![plan], free)
}

fn order() -> ClientOrder {
    ClientOrder {
        id: Some("batch".to_owned()),
        name: "Nightly batch".to_owned(),
        auth: AuthenticationOrder::Secret,
        grants: vec!["client_credentials".to_owned()],
        scopes: vec!["read".to_owned()],
        roles: vec!["machine".to_owned()],
        ..ClientOrder::default()
    }
}

fn refused(change: impl FnOnce(&mut ClientOrder)) -> ClientFault {
    let mut order = order();
    change(&mut order);
    order.checked(&plans(), &SystemHost::new()).unwrap_err()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_right_order_makes_a_client_and_shows_its_secret_once() {
    let NewClient { client, secret } = order().checked(&plans(), &SystemHost::new()).unwrap();
    assert_eq!((client.id.as_str(), client.plan.as_str(), client.version), ("batch", "free", 1));
    assert!(!client.disabled && client.auth.is_confidential());
    let secret = secret.unwrap();
    let ClientAuthentication::Secret(kept) = &client.auth else { panic!("{client:?}") };
    assert!(kept[0].digest.matches(&SecretDigest::of(secret.reveal().as_bytes())));
    // 32 characters of base62 are 190 bits.
    let parts: Vec<_> = secret.reveal().split('_').collect();
    assert_eq!((parts[0], parts[1], parts[2].len()), ("tgc", kept[0].id.as_str(), 32));
    for shown in [format!("{secret:?}"), format!("{client:?}")] {
        assert!(!shown.contains(parts[2]), "{shown}");
    }
}

#[test]
fn an_id_is_made_when_none_is_wanted() {
    let made = ClientOrder { id: None, ..order() }.checked(&plans(), &SystemHost::new()).unwrap();
    assert!(made.client.id.as_str().starts_with("c_"));
}

#[test]
fn grants_need_the_authentication_that_they_rest_on() {
    let public = AuthenticationOrder::None;
    let cases = [
        (refused(|order| order.auth = public.clone()), ClientFault::PublicClientCredentials),
        (refused(|order| order.grants = Vec::new()), ClientFault::Grants),
        (refused(|order| order.grants = strings(&["password"])), ClientFault::Grants),
        (refused(|order| order.grants = strings(&["refresh_token"])), ClientFault::RefreshWithoutLogin),
        (
            refused(|order| {
                order.auth = public.clone();
                order.grants = strings(&["login"]);
                order.may_introspect = true;
            }),
            ClientFault::PublicIntrospection,
        ),
    ];
    for (fault, expected) in cases {
        assert_eq!(fault, expected);
    }
}

#[test]
fn a_refused_order_names_the_member() {
    let long = "x".repeat(256);
    let many: Vec<String> = (0..=SCOPES_MAX).map(|number| format!("s{number}")).collect();
    let cases = [
        ("id", refused(|order| order.id = Some(String::new()))),
        ("id", refused(|order| order.id = Some("a b".to_owned()))),
        ("id", refused(|order| order.id = Some("a:b".to_owned()))),
        ("id", refused(|order| order.id = Some("a%41".to_owned()))),
        ("id", refused(|order| order.id = Some("a+b".to_owned()))),
        ("id", refused(|order| order.id = Some(long.clone()))),
        ("name", refused(|order| order.name = String::new())),
        ("name", refused(|order| order.name = "a\nb".to_owned())),
        ("name", refused(|order| order.name = long.clone())),
        ("tenant", refused(|order| order.tenant = Some(String::new()))),
        ("plan", refused(|order| order.plan = Some("gold".to_owned()))),
        ("scopes", refused(|order| order.scopes = many.clone())),
        ("scopes", refused(|order| order.scopes = strings(&["a b"]))),
        ("roles", refused(|order| order.roles = strings(&[""]))),
        ("roles", refused(|order| order.roles = many.clone())),
        ("jwks", refused(|order| order.auth = AuthenticationOrder::PrivateKeyJwt("{}".to_owned()))),
        ("jwks", refused(|order| order.auth = AuthenticationOrder::PrivateKeyJwt(" ".repeat(20_000)))),
    ];
    for (member, fault) in cases {
        assert!(fault.to_string().starts_with(&format!("{member}:")), "{member}: {fault}");
    }
}

#[test]
fn every_key_of_a_client_must_be_usable() {
    let good = ClientKey::ed25519("one");
    assert!(ClientKeys::from_jwks(&jwks(&[&good])).is_ok());
    let mut private: serde_json::Value = serde_json::from_str(&jwks(&[&good])).unwrap();
    let mut second = private["keys"][0].clone();
    second["kid"] = "two".into();
    second["d"] = "AAAA".into();
    private["keys"].as_array_mut().unwrap().push(second);
    let fault = ClientKeys::from_jwks(&private.to_string()).unwrap_err();
    assert_eq!(fault, ClientFault::JwksKey { place: 1, fault: KeyFault::PrivatePart });
    let keys: Vec<_> = (0..=CLIENT_KEYS_MAX).map(|number| ClientKey::ed25519(&number.to_string())).collect();
    let keys: Vec<_> = keys.iter().collect();
    assert_eq!(ClientKeys::from_jwks(&jwks(&keys)).unwrap_err(), ClientFault::JwksSize);
}

#[test]
fn secrets_are_rotated_one_by_one() {
    let host = SystemHost::new();
    let NewClient { mut client, secret } = order().checked(&plans(), &host).unwrap();
    let first = secret.unwrap().kept.id;
    assert_eq!(client.withdraw_secret(&first), Err(ClientFault::LastSecret));
    for _ in 1..SECRETS_MAX {
        client.add_secret(&host).unwrap();
    }
    assert_eq!(client.add_secret(&host).unwrap_err(), ClientFault::TooManySecrets);
    client.check(&plans()).unwrap();
    assert_eq!(client.withdraw_secret("nothere"), Err(ClientFault::UnknownSecret));
    client.withdraw_secret(&first).unwrap();
    let ClientAuthentication::Secret(kept) = &client.auth else { panic!("{client:?}") };
    assert!(kept.len() == SECRETS_MAX - 1 && kept.iter().all(|secret| secret.id != first));
    let mut public = Client::first_party("free").unwrap();
    assert_eq!(public.add_secret(&host).unwrap_err(), ClientFault::NoSecrets);
}

#[test]
fn the_first_client_is_right_and_public() {
    let client = Client::first_party("free").unwrap();
    client.check(&plans()).unwrap();
    assert_eq!(client.auth.name(), "none");
    let grants: Vec<_> = client.grants.iter().map(Grant::name).collect();
    assert_eq!(grants, ["login", "refresh_token"]);
    assert_eq!(Grants::named(&grants), Some(client.grants));
}
