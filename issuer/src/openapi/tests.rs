use std::collections::BTreeSet;

use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::wire::quota::{
    QuotaAnswer, QuotaBatch, WireBucket, WireGrant, WireRefusal, WireReturn, WireUsage, WireWant,
};
use zeroize::Zeroizing;

use super::*;
use crate::error::Refusal;
use crate::oauth::error::{OAuthError, RequestFault};
use crate::oauth::introspection::tests::token;
use crate::oauth::introspection::{ActiveToken, Introspection};
use crate::oauth::scope::Scopes;
use crate::oauth::token_response::TokenResponse;

fn written() -> Value {
    serde_json::to_value(document(&IssuerId::new("https://issuer.example").unwrap())).unwrap()
}

#[test]
fn every_route_is_described_and_nothing_else_is() {
    let name = |method: &Method, path: &str| (method.to_string(), path.to_owned());
    let table: BTreeSet<_> = routes().iter().map(|(method, path, _)| name(method, path)).collect();
    let described: Vec<_> = descriptions().iter().map(|one| name(&one.method, one.path)).collect();
    assert_eq!(described.iter().cloned().collect::<BTreeSet<_>>(), table);
    assert_eq!(described.len(), table.len(), "one is described twice");
    let document = written();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        operations.extend(item.as_object().unwrap().keys().map(|verb| (verb.to_uppercase(), path.clone())));
    }
    let plain = |(method, path): (String, String)| (method, path.replace("{*", "{"));
    assert_eq!(operations, table.into_iter().map(plain).collect());
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = written();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
    assert!(found.len() > 20);
    let all = descriptions();
    let ids: BTreeSet<_> = all.iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), all.len());
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[test]
fn what_is_refused_is_described_as_refused() {
    let document = written();
    let user = &document["components"]["schemas"]["NewUser"];
    assert_eq!(user["additionalProperties"], false);
    assert_eq!(user["required"], serde_json::json!(["username", "password"]));
    assert_eq!(user["properties"]["username"]["maxLength"], 255);
    let patch = &document["components"]["schemas"]["UserPatch"];
    // Only what can be taken away can be null.
    assert_eq!(patch["properties"]["tenant"]["type"], serde_json::json!(["string", "null"]));
    assert_eq!(patch["properties"]["plan"]["type"], "string");
    assert!(patch.get("required").is_none());
    let add = &document["paths"]["/v1/admin/users"]["post"];
    let statuses: Vec<_> = add["responses"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(statuses, ["201", "400", "401", "403", "408", "409", "413", "415", "422", "503"]);
    assert_eq!(add["security"][0]["operator"], serde_json::json!([]));
    assert_eq!(add["description"], "Needs the permission `users:write`.");
}

/// What is wrong with a value that has every member there is: a member that its schema lacks, one that only the schema
/// has, or another type.
fn faults(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        return faults(document, schema, value, at, found);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = |choice: &&Value| {
            let mut found = Vec::new();
            faults(document, choice, value, at, &mut found);
            found.is_empty()
        };
        if choices.iter().filter(fits).count() != 1 {
            found.push(format!("{at} is none of the choices, or several: {value}"));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if schema["type"] != kind {
        found.push(format!("{at} is {kind} and not {}", schema["type"]));
    }
    for value in value.as_array().into_iter().flatten() {
        faults(document, &schema["items"], value, &format!("{at}[]"), found);
    }
    let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object()) else {
        return;
    };
    for name in members.keys().chain(properties.keys()).collect::<BTreeSet<_>>() {
        let at = format!("{at}.{name}");
        match (properties.get(name), members.get(name)) {
            (Some(schema), Some(value)) => faults(document, schema, value, &at, found),
            (None, _) => found.push(format!("{at} is not described")),
            (_, None) => found.push(format!("{at} is only described")),
        }
    }
}

/// Checks a shape that is written by hand against what the program writes or reads: with all members there are, and with the
/// fewest.
fn agrees(shape: &str, most: &Value, least: &Value) {
    let document = written();
    let schema = &document["components"]["schemas"][shape];
    let mut found = Vec::new();
    faults(&document, schema, most, shape, &mut found);
    assert_eq!(found, Vec::<String>::new());
    let required: BTreeSet<_> =
        schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let members: BTreeSet<_> = least.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(required, members, "what {shape} always has");
}

#[test]
fn what_an_introspection_and_a_token_response_say_is_described() {
    let tenant = Some("acme".to_owned());
    let token = ActiveToken { not_before: Some(UnixSeconds(10)), tenant, ..token() };
    let several = ActiveToken { audiences: vec!["a".to_owned(), "b".to_owned()], ..token.clone() };
    for token in [token, several] {
        let most = Introspection::Active(Box::new(token)).to_json();
        agrees("Introspection", &most, &Introspection::Inactive.to_json());
    }
    let response = |scope: &str, refresh_token: Option<&str>| {
        Value::from(
            TokenResponse {
                access_token: "a.b.c".to_owned(),
                expires_in: 900,
                scope: Scopes::parse(scope).unwrap(),
                refresh_token: refresh_token.map(|token| Zeroizing::new(token.to_owned())),
            }
            .to_json(),
        )
    };
    agrees("OAuthTokens", &response("read", Some("tgr_1")), &response("", None));
}

#[tokio::test]
async fn what_a_refusal_says_is_described() {
    let body = async |response: axum::response::Response| -> Value {
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), 4096).await.unwrap()).unwrap()
    };
    let most = body(Refusal::Invalid("plan: is none".to_owned()).into_response()).await;
    agrees("Problem", &most, &body(Refusal::NotFound.into_response()).await);
    let most = body(OAuthError::from(RequestFault::Missing("token")).into_response()).await;
    agrees("OAuthError", &most, &body(OAuthError::InvalidGrant.into_response()).await);
}

#[test]
fn what_a_quota_batch_says_and_is_answered_is_described() {
    let bucket = WireBucket::from([("subject".to_owned(), "u_1".to_owned())]);
    let batch = QuotaBatch {
        edge: "eu-1".to_owned(),
        epoch: "e".to_owned(),
        sequence: 1,
        usage: vec![WireUsage { bucket: bucket.clone(), window: 0, allowed: 1, denied: 0 }],
        wants: vec![WireWant { bucket: bucket.clone(), units: 1, held: 0, least: 1 }],
        returns: vec![WireReturn { bucket: bucket.clone(), window: 0, units: 1 }],
    };
    let least = json!({ "edge": "eu-1", "epoch": "e", "sequence": 1 });
    agrees("QuotaBatch", &json!(batch), &least);
    let want = json!({ "bucket": bucket, "units": 1, "held": 0 });
    agrees("QuotaWant", &json!(batch.wants[0]), &want);
    // Nothing less than that is read.
    assert!(serde_json::from_value::<QuotaBatch>(least.clone()).is_ok());
    assert!(serde_json::from_value::<WireWant>(want.clone()).is_ok());
    for name in least.as_object().unwrap().keys() {
        let without = without(&least, name);
        assert!(serde_json::from_value::<QuotaBatch>(without).is_err(), "without {name}");
    }
    for name in want.as_object().unwrap().keys() {
        assert!(serde_json::from_value::<WireWant>(without(&want, name)).is_err(), "without {name}");
    }
    for (shape, entry) in [("QuotaUsage", json!(batch.usage[0])), ("QuotaReturn", json!(batch.returns[0]))] {
        agrees(shape, &entry, &entry);
    }
    let grant = WireGrant {
        bucket: bucket.clone(),
        window: 0,
        units: 1,
        expires_in: 1,
        remaining: 1,
        resets_in: 1,
        limit: 1,
        window_seconds: 1,
    };
    let refusal =
        WireRefusal { bucket, window: 0, resets_in: 1, ask_again_in: 1, limit: 1, window_seconds: 1 };
    agrees("QuotaGrant", &json!(grant), &json!(grant));
    agrees("QuotaRefusal", &json!(refusal), &json!(refusal));
    let answer = json!(QuotaAnswer { grants: vec![grant], refusals: vec![refusal] });
    agrees("QuotaAnswer", &answer, &json!(QuotaAnswer::default()));
}

fn without(object: &Value, member: &str) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove(member);
    object
}
