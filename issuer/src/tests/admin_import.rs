//! Users of another system, and the command line that does what the API does.

use super::*;
use crate::audit::AuditQuery;
use crate::tests::settings::command;

const LEGACY: &str = "$2b$04$";

fn bcrypt_of(password: &str) -> String {
    let hash = bcrypt::hash(password, 4).unwrap();
    assert!(hash.starts_with(LEGACY));
    hash
}

#[tokio::test]
async fn a_file_with_a_bad_line_imports_nothing_and_a_good_one_all() {
    let bench = Bench::new().await;
    let data = bench.folder.path().to_str().unwrap();
    let file = bench.folder.path().join("users.jsonl");
    let path = file.to_str().unwrap();
    let hash = bcrypt_of(PASSWORD);
    let line =
        |name: &str, more: &str| format!("{{\"username\":\"{name}\",\"password_hash\":\"{hash}\"{more}}}\n");
    let good =
        [line("bob", ""), line("carol", r#","id":"u_7","roles":["member"],"scopes":["read"]"#)].concat();
    bench.user("alice").await;
    let bad = [
        good.as_str(),
        &line("dave", r#","roles":["nobody"]"#),
        &line("erin", r#","tenant":"nowhere""#),
        &line("frank", r#","plan":"golden""#),
        "{\"username\":\"grace\"}\n",
    ]
    .concat();
    std::fs::write(&file, &bad).unwrap();
    let error = command(&["user", "import", path, "--data-dir", data], "").await.unwrap_err();
    assert_eq!(error, "4 lines were not imported");
    assert!(bench.app.user_named("bob").await.is_err());
    // One is there already, and stays as it is.
    std::fs::write(&file, [line("alice", ""), good].concat()).unwrap();
    let dry = command(&["user", "import", path, "--dry-run", "--data-dir", data], "").await.unwrap();
    assert!(dry.ends_with("2 would be added, 1 exist already, 0 bad\n"), "{dry}");
    assert!(bench.app.user_named("bob").await.is_err());
    let done = command(&["user", "import", path, "--data-dir", data], "").await.unwrap();
    assert!(done.contains("line 1: username: exists already"), "{done}");
    assert!(done.ends_with("2 added, 1 exist already, 0 bad\n"), "{done}");
    let again = command(&["user", "import", path, "--data-dir", data], "").await.unwrap();
    assert!(again.ends_with("0 added, 3 exist already, 0 bad\n"), "{again}");
    assert_eq!(bench.login("carol").await["user"]["id"], "u_7");
    let imported = AuditQuery { action: Some("user.import".to_owned()), ..AuditQuery::default() };
    let events = bench.audit(imported).await;
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.actor == "command line" && !event.detail.contains(&hash)));
}

#[tokio::test]
async fn a_bad_line_is_reported_by_its_number() {
    let bench = Bench::new().await;
    let text = format!(
        "\n{{\"username\":\"bob\",\"password_hash\":\"{0}\"}}\n{{\"username\":\"eve\",\"password_hash\":\"{0}\",\"roles\":[\"nobody\"]}}\nnonsense\n",
        bcrypt_of(PASSWORD)
    );
    let open = || Ok(text.as_bytes());
    let mode = crate::admin::ImportMode::Import;
    let report = bench.app.import_users(open, mode, &Actor::command_line()).await.unwrap().unwrap();
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["line 3: roles: there is none of this name", "line 4: is not a JSON object"]);
    assert_eq!((report.added, report.bad), (0, 2));
}

#[tokio::test]
async fn a_legacy_hash_logs_in_and_is_hashed_again_once() {
    let bench = Bench::new().await;
    let text = format!("{{\"username\":\"bob\",\"password_hash\":\"{}\"}}\n", bcrypt_of(PASSWORD));
    let open = || Ok(text.as_bytes());
    let mode = crate::admin::ImportMode::Import;
    bench.app.import_users(open, mode, &Actor::command_line()).await.unwrap().unwrap();
    let hash = async || bench.app.user_named("bob").await.unwrap().password_hash;
    assert!(hash().await.starts_with(LEGACY));
    bench.login("bob").await;
    let first = hash().await;
    assert!(first.starts_with("$argon2id$"), "{first}");
    bench.login("bob").await;
    assert_eq!(hash().await, first);
}

#[tokio::test]
async fn the_command_line_does_what_the_api_does() {
    let bench = Bench::new().await;
    let data = bench.folder.path().to_str().unwrap();
    let order = async |arguments: &[&str], input: &str| {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--data-dir", data]).collect();
        command(&arguments, input).await
    };
    order(&["role", "add", "auditor", "--permission", "read"], "").await.unwrap();
    order(&["tenant", "add", "acme", "--name", "Acme"], "").await.unwrap();
    order(&["user", "add", "carol", "--role", "auditor", "--tenant", "acme"], "correct horse\n")
        .await
        .unwrap();
    let error = order(&["user", "add", "dave", "--role", "nobody"], "correct horse\n").await.unwrap_err();
    assert_eq!(error, "roles: there is none of this name");
    let shown: Value = serde_json::from_str(&order(&["user", "show", "carol"], "").await.unwrap()).unwrap();
    let seen =
        bench.get(&format!("/v1/admin/users/{}", shown["id"].as_str().unwrap()), Some(&bench.operator)).await;
    assert_eq!(shown, seen.json());
    order(&["user", "set", "carol", "--no-tenant", "--scope", "write"], "").await.unwrap();
    let changed: Value = serde_json::from_str(order(&["user", "list"], "").await.unwrap().trim()).unwrap();
    assert_eq!((&changed["tenant"], &changed["scopes"]), (&Value::Null, &json!(["write"])));
    bench.login("carol").await;
    assert_eq!(order(&["user", "sessions", "carol"], "").await.unwrap().lines().count(), 1);
    order(&["user", "password", "carol"], "a much better one\n").await.unwrap();
    assert_eq!(order(&["user", "sessions", "carol"], "").await.unwrap(), "");
    for word in ["disable", "enable", "unlock", "delete"] {
        order(&["user", word, "carol"], "").await.unwrap();
    }
    assert_eq!(order(&["user", "show", "carol"], "").await.unwrap_err(), "does not exist");
    let added = order(
        &["client", "add", "Robot", "--id", "robot", "--auth", "secret", "--grant", "client_credentials"],
        "",
    );
    let added = added.await.unwrap();
    let (client, secret) = added.trim().split_once('\n').unwrap();
    assert!(client.contains("\"id\":\"robot\"") && secret.starts_with("tgc_"));
    let second = order(&["client", "secret", "add", "robot"], "").await.unwrap();
    order(&["client", "secret", "withdraw", "robot", second.split(' ').next().unwrap()], "").await.unwrap();
    for arguments in [
        &["client", "set", "robot", "--name", "Machine"][..],
        &["client", "show", "robot"],
        &["client", "list"],
        &["client", "disable", "robot"],
        &["client", "delete", "robot"],
        &["role", "set", "auditor"],
        &["role", "list"],
        &["role", "delete", "auditor"],
        &["tenant", "list"],
        &["tenant", "disable", "acme"],
        &["tenant", "enable", "acme"],
        &["key", "list"],
        &["key", "rotate"],
        &["shard", "list"],
        &["shard", "spread"],
        &["operator", "add", "clerk", "--permission", "users:read"],
        &["operator", "remove", "clerk"],
        &["audit", "list", "--limit", "3"],
    ] {
        order(arguments, "").await.unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    }
    assert!(order(&["operator", "add", "x", "--permission", "everything"], "").await.is_err());
    assert_eq!(
        order(&["operator", "list"], "").await.unwrap(),
        "{\"name\":\"first\",\"permissions\":[\"*\"]}\n"
    );
    let log = order(&["audit", "export", "--actor", "command line"], "").await.unwrap();
    for action in ["user.create", "client.secret", "role.delete", "tenant.change", "operator.create"] {
        assert!(log.contains(&format!("\"action\":\"{action}\"")), "{action}");
    }
    assert!(!log.contains(secret) && !log.contains("correct horse"));
}
