//! The command line does what the API does: each call has its command, and what a command does not name stays.

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _};

use super::settings::command;
use super::*;
use crate::cli::Cli;
use crate::routes;

/// The command for each call of operators. A new route without an entry fails.
const COMMANDS: [(&str, &str); 44] = [
    ("POST users", "user add NAME"),
    ("GET users", "user list"),
    ("GET users/{id}", "user show NAME"),
    ("PATCH users/{id}", "user set NAME --plan PLAN --no-roles --no-scopes --no-tenant"),
    ("DELETE users/{id}", "user delete NAME"),
    ("PUT users/{id}/password", "user password NAME"),
    ("POST users/{id}/unlock", "user unlock NAME"),
    ("GET users/{id}/sessions", "user sessions NAME"),
    ("DELETE users/{id}/sessions", "user end-sessions NAME"),
    ("DELETE users/{id}/sessions/{sid}", "user end-sessions NAME --session ID"),
    ("POST roles", "role add NAME"),
    ("GET roles", "role list"),
    ("GET roles/{name}", "role show NAME"),
    ("PUT roles/{name}", "role set NAME --no-permissions --description TEXT"),
    ("DELETE roles/{name}", "role delete NAME"),
    ("POST tenants", "tenant add ID"),
    ("GET tenants", "tenant list"),
    ("GET tenants/{id}", "tenant show ID"),
    ("PATCH tenants/{id}", "tenant set ID --name NAME"),
    ("POST clients", "client add NAME --grant login"),
    ("GET clients", "client list"),
    ("GET clients/{id}", "client show ID"),
    ("PATCH clients/{id}", "client set ID --name NAME --no-roles --no-scopes --keys-stdin"),
    ("DELETE clients/{id}", "client delete ID"),
    ("POST clients/{id}/secrets", "client secret add ID"),
    ("DELETE clients/{id}/secrets/{secret}", "client secret withdraw ID SECRET"),
    ("POST api-keys", "api-key add NAME --user USER"),
    ("GET api-keys", "api-key list --client CLIENT"),
    ("GET api-keys/{id}", "api-key show ID"),
    ("DELETE api-keys/{id}", "api-key revoke ID"),
    ("GET signing-keys", "key list"),
    ("POST signing-keys/rotate", "key rotate"),
    ("POST signing-keys/{kid}/withdraw", "key withdraw KID --reason TEXT"),
    ("GET edges", "edge list"),
    ("POST edges", "edge add ID"),
    ("DELETE edges/{id}", "edge remove ID"),
    ("GET operators", "operator list"),
    ("POST operators", "operator add NAME --permission users:read"),
    ("DELETE operators/{name}", "operator remove NAME"),
    ("POST revocations", "revoke subject ID --reason TEXT --issuer URL --issued-before 1700000000"),
    (
        "GET revocations",
        "revocation list --dimension subject --value ID --actor NAME --since 1 --until 2 --after 3",
    ),
    ("GET audit", "audit list --actor NAME --limit 10"),
    ("GET audit?format=ndjson", "audit export"),
    ("GET shards", "shard list"),
];

/// The commands that are ways to change one member of something that has its entry above.
const SHORTER: [&str; 6] =
    ["user disable", "user enable", "client disable", "client enable", "tenant disable", "tenant enable"];

/// The commands for the machine that has the data. ARCHITECTURE.md says why they are no calls.
const OF_THE_MACHINE: [&str; 7] =
    ["serve", "config check", "config show", "user import", "key anchor", "shard spread", "feed renew"];

#[test]
fn every_call_of_operators_has_its_command_and_no_command_is_forgotten() {
    let calls: BTreeSet<String> = routes()
        .into_iter()
        .filter_map(|(method, path, _)| Some(format!("{method} {}", path.strip_prefix("/v1/admin/")?)))
        .collect();
    let called = COMMANDS.iter().map(|(call, _)| call.split('?').next().unwrap().to_owned());
    assert_eq!(called.collect::<BTreeSet<_>>(), calls);

    let leaves = leaves(&Cli::command(), "");
    let mut named: BTreeSet<String> = SHORTER.into_iter().chain(OF_THE_MACHINE).map(str::to_owned).collect();
    for (call, line) in COMMANDS {
        let words: Vec<&str> = line.split(' ').collect();
        let read = Cli::try_parse_from(std::iter::once("tollgate-issuer").chain(words));
        assert!(read.is_ok(), "{call}: {line}: {read:?}");
        let leaf = leaves.iter().filter(|leaf| line == **leaf || line.starts_with(&format!("{leaf} ")));
        named.extend(leaf.cloned());
    }
    assert_eq!(named, leaves);
}

/// The commands that have none below them.
fn leaves(command: &clap::Command, above: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for below in command.get_subcommands() {
        let name = format!("{above}{}", below.get_name());
        if below.has_subcommands() {
            found.extend(leaves(below, &format!("{name} ")));
        } else {
            found.insert(name);
        }
    }
    found
}

/// Orders on the data of a bench.
struct Shell {
    data: String,
}

impl Shell {
    fn of(bench: &Bench) -> Self {
        Self { data: bench.folder.path().to_str().unwrap().to_owned() }
    }

    async fn try_order(&self, line: &str, input: &str) -> Result<String, String> {
        let mut words = vec!["--data-dir", &self.data];
        words.extend(line.split(' '));
        command(&words, input).await
    }

    async fn order(&self, line: &str) -> String {
        self.try_order(line, "").await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.order(line).await).unwrap()
    }
}

#[tokio::test]
async fn a_change_of_a_role_keeps_what_it_does_not_name() {
    let bench = Bench::new().await;
    let shell = Shell::of(&bench);
    shell.order("role add auditor --permission read --permission list --description Looks").await;
    let both = json!(["read", "list"]);
    let is = |role: &Value, permissions: &Value, description: &str| {
        assert_eq!((&role["permissions"], role["description"].as_str().unwrap()), (permissions, description));
    };
    is(&shell.json("role set auditor").await, &both, "Looks");
    is(&shell.json("role set auditor --description Watches").await, &both, "Watches");
    is(&shell.json("role set auditor --permission list").await, &json!(["list"]), "Watches");
    is(&shell.json("role set auditor --no-permissions").await, &json!([]), "Watches");
    let shown = shell.json("role show auditor").await;
    is(&shown, &json!([]), "Watches");
    assert_eq!(shown, bench.get("/v1/admin/roles/auditor", Some(&bench.operator)).await.json());
    assert_eq!(shell.try_order("role set nobody", "").await.unwrap_err(), "does not exist");
    assert_eq!(shell.try_order("role show nobody", "").await.unwrap_err(), "does not exist");
}

#[tokio::test]
async fn sessions_tenants_clients_and_revocations_are_ordered_as_over_the_network() {
    let bench = Bench::new().await;
    let shell = Shell::of(&bench);
    bench.user("alice").await;
    for _ in 0..3 {
        bench.login("alice").await;
    }
    let first = bench.sessions("alice").await[0].clone();
    assert_eq!(shell.order(&format!("user end-sessions alice --session {first}")).await, "ended\n");
    let left = bench.sessions("alice").await;
    assert!(left.len() == 2 && !left.contains(&first));
    let unknown = shell.try_order("user end-sessions alice --session s_nobody", "").await;
    assert_eq!(unknown.unwrap_err(), "does not exist");
    shell.order("user end-sessions alice").await;
    assert!(bench.sessions("alice").await.is_empty());

    shell.order("tenant add acme").await;
    shell.order("tenant set acme --name Acme").await;
    assert_eq!(shell.json("tenant show acme").await["name"], "Acme");

    let keys = |x: &str| json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "one", "x": x }] });
    let (old, new) = (
        keys("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
        keys("PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"),
    );
    let add = "client add Batch --id batch --auth keys --grant client_credentials --role member --scope read";
    shell.try_order(add, &old.to_string()).await.unwrap();
    shell.try_order("client set batch --keys-stdin", &new.to_string()).await.unwrap();
    let shown = shell.json("client show batch").await;
    assert_eq!(
        (&shown["jwks"], &shown["roles"], &shown["scopes"]),
        (&new, &json!(["member"]), &json!(["read"]))
    );
    shell.order("client set batch --no-roles").await;
    let shown = shell.json("client set batch --no-scopes").await;
    assert_eq!((&shown["jwks"], &shown["roles"], &shown["scopes"]), (&new, &json!([]), &json!([])));
    assert!(shell.try_order("client set batch --keys-stdin", "{}").await.is_err());

    let edge = bench.edge("eu-1").await;
    shell.order("revoke subject u_1 --issuer https://other.example").await;
    let cutoffs = bench.start_edge(&edge).await.revoked.cutoffs;
    let cutoff = cutoffs.iter().find(|cutoff| cutoff.issuer.is_some()).unwrap();
    assert_eq!(
        (cutoff.value.as_str(), cutoff.issuer.as_ref().unwrap().as_str()),
        ("u_1", "https://other.example")
    );
}

#[tokio::test]
async fn an_operator_gives_and_takes_no_more_than_the_own_permissions() {
    let bench = Bench::new().await;
    let operators = "/v1/admin/operators";
    let clerk = bench.operator_who_may(&["operators:write", "users:read"]).await;
    let add = async |by: &str, name: &str, permissions: &[&str]| {
        bench.post(operators, Some(by), &json!({ "name": name, "permissions": permissions })).await
    };
    let remove = async |by: &str, name: &str| {
        let path = format!("{operators}/{name}");
        bench.send(Method::DELETE, &path, Some(by), "", String::new()).await.status
    };
    for more in [&["*"][..], &["users:write"], &["users:read", "audit:read"], &["users:read", "*"]] {
        let answer = add(&clerk, "friend", more).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{more:?}");
        bench.is_declared(&Method::POST, operators, answer.status);
    }
    assert_eq!(remove(&clerk, "first").await, StatusCode::FORBIDDEN);
    for faulty in [&[][..], &["users:everything"]] {
        assert_eq!(
            add(&bench.operator, "friend", faulty).await.status,
            StatusCode::BAD_REQUEST,
            "{faulty:?}"
        );
    }
    let made = add(&clerk, "friend", &["users:read"]).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let friend = made.json()["credential"].as_str().unwrap().to_owned();
    assert_eq!(bench.get("/v1/admin/users", Some(&friend)).await.status, StatusCode::OK);
    assert_eq!(add(&clerk, "friend", &["users:read"]).await.status, StatusCode::CONFLICT);
    let listed = bench.get(operators, Some(&bench.operator)).await.json();
    let friend_listed = json!({ "name": "friend", "permissions": ["users:read"] });
    assert!(listed["operators"].as_array().unwrap().contains(&friend_listed), "{listed}");
    assert_eq!(remove(&clerk, "friend").await, StatusCode::NO_CONTENT);
    assert_eq!(remove(&clerk, "friend").await, StatusCode::NOT_FOUND);
    assert_eq!(bench.get("/v1/admin/users", Some(&friend)).await.status, StatusCode::UNAUTHORIZED);
    let query = crate::audit::AuditQuery { target: Some("first".to_owned()), ..Default::default() };
    let refused =
        bench.audit(query).await.into_iter().find(|event| event.action == "operator.remove").unwrap();
    assert_eq!(
        (refused.outcome.as_str(), refused.detail.as_str()),
        ("refused", "permissions: more than those of who orders it")
    );
}
