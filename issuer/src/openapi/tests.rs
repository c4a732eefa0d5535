use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

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
