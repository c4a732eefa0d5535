//! Settings, files and the command line.

use std::os::unix::fs::PermissionsExt;

use clap::Parser;

use base64ct::Encoding as _;
use tollgate_shared::token::SigningKey;

use super::*;
use crate::cli::{Cli, run};
use crate::config::{ConfigError, KeySettings};

fn load(file: Option<&str>, environment: &[(&str, &str)], flags: &Flags) -> Result<Settings, ConfigError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("issuer.toml");
    std::fs::write(&path, file.unwrap_or_default()).unwrap();
    let environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::load(file.map(|_| path.as_path()), &environment, flags)
}

fn fault(file: Option<&str>, environment: &[(&str, &str)], flags: &Flags) -> String {
    load(file, environment, flags).unwrap_err().to_string()
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "listen = \"127.0.0.1:1\"\naudience = \"file\"\n[token]\nlifetime_seconds = 100\njitter_percent = 1\n";
    let environment = [
        ("TOLLGATE_LISTEN", "127.0.0.1:2"),
        ("TOLLGATE_TOKEN__LIFETIME_SECONDS", "200"),
        ("OTHER", "x"),
        ("TOLLGATE_CREDENTIAL", "x"),
    ];
    let flags = Flags { listen: Some("127.0.0.1:3".to_owned()), ..Flags::default() };
    let settings = load(Some(file), &environment, &flags).unwrap();
    assert_eq!(settings.listen.port(), 3);
    assert_eq!(settings.token.lifetime_seconds, 200);
    assert_eq!(settings.token.jitter_percent, 1);
    assert_eq!(settings.audience, "file");
    assert_eq!(settings.issuer.as_str(), "http://127.0.0.1:8700");
}

#[test]
fn a_file_that_is_no_toml_is_refused_by_its_line_and_not_by_what_is_in_it() {
    let file = "audience = \"orders\"\n[database]\nurl = postgres://tollgate:satchel@db/tollgate\n";
    let syntax = fault(Some(file), &[], &Flags::default());
    assert!(syntax.contains("issuer.toml:3: not valid TOML"), "{syntax}");
    assert!(!syntax.contains("satchel"), "{syntax}");
    for file in [
        "redis = \"redis://:satchel@cache\"\n",
        "[database]\nshard_urls = \"postgres://tollgate:satchel@db/one\"\n",
        "[token]\nlifetime_seconds = \"satchel\"\n",
    ] {
        let kind = fault(Some(file), &[], &Flags::default());
        assert!(kind.contains("issuer.toml") && kind.contains("expected "), "{kind}");
        assert!(!kind.contains("satchel"), "{kind}");
    }
}

#[test]
fn a_faulty_setting_is_named_with_the_place_it_was_written_in() {
    let none = Flags::default();
    let unknown = fault(Some("[token]\nlifetime = 5\n"), &[], &none);
    assert!(unknown.contains("issuer.toml") && unknown.contains("`token.lifetime`"), "{unknown}");
    let unknown = fault(None, &[("TOLLGATE_TOKEN__LIFETIME", "5")], &none);
    assert!(
        unknown.contains("TOLLGATE_TOKEN__LIFETIME") && unknown.contains("`token.lifetime`"),
        "{unknown}"
    );
    let kind = fault(None, &[("TOLLGATE_TOKEN__LIFETIME_SECONDS", "soon")], &none);
    assert!(
        kind.contains("TOLLGATE_TOKEN__LIFETIME_SECONDS") && kind.contains("expected an integer"),
        "{kind}"
    );
    let kind = fault(Some("[token]\nlifetime_seconds = \"soon\"\n"), &[], &none);
    assert!(kind.contains("issuer.toml") && kind.contains("`token.lifetime_seconds`"), "{kind}");
    let range =
        fault(Some("[token]\nlifetime_seconds = 59\n"), &[("TOLLGATE_TOKEN__LIFETIME_SECONDS", "60")], &none);
    assert!(range.contains("issuer.toml") && range.contains("`token.lifetime_seconds`"), "{range}");
    let flags = Flags { listen: Some("nowhere".to_owned()), ..Flags::default() };
    let range = fault(None, &[], &flags);
    assert!(range.contains("flag --listen") && range.contains("`listen`"), "{range}");
    let relation = fault(None, &[("TOLLGATE_DEFAULT_PLAN", "gold")], &none);
    assert!(relation.contains("`default_plan`"), "{relation}");
    let relation = fault(Some("[password]\nmemory_max_mib = 18\n"), &[], &none);
    assert!(relation.contains("`password.memory_max_mib`"), "{relation}");
    assert!(load(Some("[password]\nmemory_max_mib = 19\n"), &[], &none).is_ok());
    let memory = [("TOLLGATE_PASSWORD__MEMORY_KIB", "300000")];
    assert!(fault(None, &memory, &none).contains("`password.memory_max_mib`"));
    assert!(load(Some("[password]\nmemory_max_mib = 293\n"), &memory, &none).is_ok());
}

#[tokio::test]
async fn keys_that_others_may_read_or_that_are_none_are_refused() {
    for (name, mode, content) in [
        ("signing.key", 0o640, "x"),
        ("feed.key", 0o604, "x"),
        ("feed.key", 0o600, "x"),
        ("encryption.key", 0o600, "x"),
    ] {
        let bench = Bench::new().await;
        let path = bench.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error =
            App::open(settings(bench.folder.path()), bench.host.clone()).await.unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn the_keys_of_an_earlier_release_stay_and_are_sealed() {
    let folder = TempDir::new().unwrap();
    let seed = |byte: u8| base64ct::Base64UrlUnpadded::encode_string(&[byte; 32]) + "\n";
    for (name, byte) in [("signing.key", 7), ("feed.key", 8)] {
        let path = folder.path().join(name);
        std::fs::write(&path, seed(byte)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let kept = |app: &App| (app.keys.signing.view().active().clone(), app.keys.feed.public_bytes());
    let first = App::open(settings(folder.path()), TestHost::new()).await.unwrap();
    let expected =
        (SigningKey::from_seed(&[7; 32]).id().clone(), SigningKey::from_seed(&[8; 32]).public_bytes());
    assert_eq!(kept(&first), expected);
    assert!(!folder.path().join("signing.key").exists() && !folder.path().join("feed.key").exists());
    let second = App::open(settings(folder.path()), TestHost::new()).await.unwrap();
    assert_eq!(kept(&second), expected);
}

#[tokio::test]
async fn the_key_set_is_cached_for_less_than_a_key_waits_for_its_turn() {
    let bench = Bench::with(|settings| {
        let keys = KeySettings { prepublish_seconds: 8, ..settings.keys };
        Settings { keys, ..settings }
    })
    .await;
    let answer = bench.get("/.well-known/jwks.json", None).await;
    assert_eq!(answer.header(header::CACHE_CONTROL), "public, max-age=4, stale-while-revalidate=2");
}

#[tokio::test]
async fn what_is_made_at_the_first_start_is_private_and_stays() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let first = App::open(settings(&data), TestHost::new()).await.unwrap();
    let mode = |name: &str| std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for name in ["encryption.key", "operator.token", "tollgate.sqlite3", "tollgate.sqlite3-wal"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let operator = std::fs::read(data.join("operator.token")).unwrap();
    let second = App::open(settings(&data), TestHost::new()).await.unwrap();
    assert_eq!(first.keys.signing.view().jwks, second.keys.signing.view().jwks);
    assert_eq!(first.keys.trust_anchor(), second.keys.trust_anchor());
    assert_eq!(std::fs::read(data.join("operator.token")).unwrap(), operator);
    let stored = std::fs::read(data.join("tollgate.sqlite3")).unwrap();
    let wal = std::fs::read(data.join("tollgate.sqlite3-wal")).unwrap_or_default();
    let secret = operator.trim_ascii_end().rsplit(|byte| *byte == b'_').next().unwrap();
    assert!(![stored, wal].iter().any(|bytes| bytes.windows(secret.len()).any(|window| window == secret)));
}

pub(super) async fn command(arguments: &[&str], input: &str) -> Result<String, String> {
    let cli =
        Cli::try_parse_from(std::iter::once("tollgate-issuer").chain(arguments.iter().copied())).unwrap();
    let mut output = Vec::new();
    let host = Arc::new(SystemHost::new());
    run(cli, &BTreeMap::new(), host, &mut input.as_bytes(), &mut output)
        .await
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8(output).unwrap())
}

#[tokio::test]
async fn the_command_line_works_beside_a_running_service() {
    let bench = Bench::new().await;
    let data = bench.folder.path().to_str().unwrap();
    let id = command(&["user", "add", "carol", "--scope", "read", "--data-dir", data], "correct horse\n")
        .await
        .unwrap();
    assert_eq!(bench.login("carol").await["user"]["id"], id.trim());
    let error = command(&["user", "add", "dave", "--data-dir", data], "short\n").await.unwrap_err();
    assert!(error.contains("password"), "{error}");
    let snippet = command(&["edge", "add", "eu-1", "--data-dir", data], "").await.unwrap();
    let origin: Value = serde_saphyr::from_str(&snippet).unwrap();
    let edge = origin["origin"]["credential"].as_str().unwrap();
    let anchor = command(&["key", "anchor", "--data-dir", data], "").await.unwrap();
    assert_eq!(origin["origin"]["trust_anchor"].as_str(), Some(anchor.trim()));
    let mut state = None;
    bench.poll(edge, &mut state, 0).await;
    command(&["revoke", "tenant", "acme", "--reason", "gone", "--data-dir", data], "").await.unwrap();
    bench.host.advance(100);
    assert_eq!(delta(bench.poll(edge, &mut state, 0).await).cutoffs[0].value, "acme");
    let operator = command(&["operator", "add", "second", "--data-dir", data], "").await.unwrap();
    assert_eq!(bench.get("/metrics", Some(operator.trim())).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_filters_configuration_is_checked_without_a_filter() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("filter.yaml");
    std::fs::write(&path, "providers: []\nnonsense: 1\n").unwrap();
    let error = command(&["config", "check", path.to_str().unwrap()], "").await.unwrap_err();
    assert!(error.contains("nonsense"), "{error}");
    let shown = command(&["config", "show"], "").await.unwrap();
    assert!(shown.contains("lifetime_seconds = 900"), "{shown}");
}

#[tokio::test]
async fn the_service_starts_says_so_and_ends_when_it_is_told() {
    let folder = TempDir::new().unwrap();
    let ready = folder.path().join("ready.json");
    let settings = Settings { ready_file: Some(ready.clone()), ..settings(&folder.path().join("data")) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = crate::serve(settings, Arc::new(SystemHost::new()), listener, async move {
        let _ = stopped.await;
    });
    let client = async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let ready: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        assert_eq!(ready["listen"], address.to_string());
        stop.send(()).unwrap();
    };
    let (served, ()) = tokio::join!(service, client);
    served.unwrap();
}
