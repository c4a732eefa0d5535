//! No secret that the issuer is given or gives is ever in its logs, its metrics, its audit or an answer that refuses; and a
//! name that was sent to it never begins a line of its log.

mod clients;
mod given;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;

use base64ct::{Base64, Base64Url, Encoding};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection as _};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tollgate_tests::client::{Client, Request, raw};
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions, binary};
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};
use tollgate_tests::redis_server::{RedisOptions, RedisServer};

const RIGHT: &str = "Canary-right horse+battery/42";
const WRONG: &str = "Canary-wrong horse+battery/43";
const TYPED_BY_CLI: &str = "Canary-typed horse+battery/44";
const TYPED_NOWHERE: &str = "Canary-stray horse+battery/45";
const CHANGED: &str = "Canary-changed horse+battery/46";
/// What the programs of the tests are told in their environment.
const DATABASE_WORD: &str = "Canary-database-horse-battery-47";
const REDIS_WORD: &str = "Canary-redis-horse-battery-48";
const ENCRYPTION_KEY: &str = "Q2FuYXJ5LWtleSBvZiBhIHRlc3QsIDMyIGJ5dGVzLi4";
/// Of a password of no user.
const IMPORTED: &str = "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";
/// What would be a line of the log, a colour, and a field of JSON, if it got there as it is.
const FORGED: &str =
    "mallory\n2026-01-01T00:00:00Z  INFO forged: line\r\n\u{1b}[31mred\u{85}\u{2028}\",\"forged\":\"field";

/// Secrets, and everything that may have been said of them.
struct Watch {
    issuer: Issuer,
    /// The environment of the issuer, and of its commands.
    variables: Vec<(String, String)>,
    client: Client,
    secrets: BTreeSet<String>,
    said: Vec<(String, String)>,
}

impl Watch {
    async fn new(options: IssuerOptions, format: &str, level: &str, evidence: &Arc<Evidence>) -> Self {
        let mut options = options
            .with("LOG__FORMAT", format)
            .with("LOG__LEVEL", level)
            .with("SESSION__GRACE_SECONDS", "0")
            .with("KEYS__ENCRYPTION_KEY", ENCRYPTION_KEY);
        // Should it ever panic, what it says of that counts as well.
        options.variables.push(("RUST_BACKTRACE".to_owned(), "full".to_owned()));
        let variables = options.variables.clone();
        let issuer = Issuer::start(options, evidence).await.unwrap();
        let operator = issuer.operator_token().to_owned();
        let known = [
            RIGHT,
            WRONG,
            CHANGED,
            TYPED_BY_CLI,
            TYPED_NOWHERE,
            DATABASE_WORD,
            REDIS_WORD,
            ENCRYPTION_KEY,
            IMPORTED,
            &operator,
        ];
        let secrets = known.into_iter().map(str::to_owned).collect();
        Self { issuer, variables, client: Client::fresh_connections(), secrets, said: Vec::new() }
    }

    fn keep(&mut self, secret: &Value) -> String {
        let secret = secret.as_str().expect("a secret").to_owned();
        self.secrets.insert(secret.clone());
        secret
    }

    /// Sends a request and keeps the answer among what was said, unless it is one that gives secrets.
    async fn send(&mut self, what: &str, request: impl AsyncFnOnce(&Self) -> (u16, String)) -> (u16, String) {
        let (status, text) = request(self).await;
        if !(200..300).contains(&status) {
            self.said.push((format!("answer {status} to {what}"), text.clone()));
        }
        (status, text)
    }

    fn request(&self, method: &str, path: &str, token: Option<&str>) -> Request<'_> {
        let request = self.client.request(method, &format!("{}{path}", self.issuer.base_url()));
        match token {
            Some(token) => request.bearer(token),
            None => request,
        }
    }

    async fn post(&mut self, path: &str, token: Option<&str>, body: &Value) -> (u16, String) {
        self.send(path, async |watch| {
            let answer = watch.request("POST", path, token).json(body).send().await.unwrap();
            (answer.status, answer.text())
        })
        .await
    }

    async fn form(&mut self, path: &str, token: Option<&str>, fields: &[(&str, &str)]) -> (u16, String) {
        self.send(path, async |watch| {
            let answer = watch.request("POST", path, token).form(fields).send().await.unwrap();
            (answer.status, answer.text())
        })
        .await
    }

    /// The program itself, with something on its standard input.
    async fn run(&mut self, words: &[&str], input: &str) -> String {
        self.run_with(&[], words, input).await
    }

    /// The same with further variables.
    async fn run_with(&mut self, further: &[(&str, &str)], words: &[&str], input: &str) -> String {
        let mut command = Command::new(binary().unwrap());
        command.args(words).arg("--data-dir").arg(self.issuer.data());
        command.envs(self.variables.iter().cloned()).envs(further.iter().copied());
        command.env("TOLLGATE_LOG__LEVEL", "trace").env("TOLLGATE_ISSUER", "http://issuer.test");
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        self.said.push((format!("standard error of {words:?}"), said));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything a user does with a password and what it gives.
    async fn as_a_user(&mut self, name: &str) {
        let login = |name: &str, password: &str| json!({ "username": name, "password": password });
        let (status, text) = self.post("/v1/login", None, &login(name, RIGHT)).await;
        assert_eq!(status, 200, "{text}");
        let tokens: Value = serde_json::from_str(&text).unwrap();
        let access = self.keep(&tokens["access_token"]);
        let refresh = self.keep(&tokens["refresh_token"]);
        let device = self.keep(&tokens["device_token"]);
        for (name, password) in [(name, WRONG), ("nobody", TYPED_NOWHERE), (WRONG, WRONG)] {
            let (status, text) = self.post("/v1/login", None, &login(name, password)).await;
            assert_eq!(status, 401, "{text}");
        }
        for (member, token, passwords) in [
            // What a login that succeeds calls its device is kept under that name, to be shown.
            ("device", &*device, &[WRONG][..]),
            ("device_token", &*device, &[WRONG, RIGHT]),
            ("device_token", TYPED_NOWHERE, &[WRONG, RIGHT]),
        ] {
            for password in passwords {
                let mut with_device = login(name, password);
                with_device[member] = json!(token);
                let (_, text) = self.post("/v1/login", None, &with_device).await;
                let answer: Value = serde_json::from_str(&text).unwrap();
                for given in ["access_token", "refresh_token", "device_token"] {
                    if answer[given].is_string() {
                        self.keep(&answer[given]);
                    }
                }
            }
        }
        // Twice: the second time it is stolen.
        for _ in 0..2 {
            let fields =
                [("grant_type", "refresh_token"), ("client_id", "first-party"), ("refresh_token", &*refresh)];
            let (status, text) = self.form("/oauth2/token", None, &fields).await;
            if status == 200 {
                let tokens: Value = serde_json::from_str(&text).unwrap();
                self.keep(&tokens["access_token"]);
                self.keep(&tokens["refresh_token"]);
            }
        }
        let wrong_client =
            [("grant_type", "client_credentials"), ("client_id", "nobody"), ("client_secret", TYPED_NOWHERE)];
        self.form("/oauth2/token", None, &wrong_client).await;
        for path in ["/oauth2/introspect", "/oauth2/revoke"] {
            for token in [&refresh, &access] {
                self.form(path, Some(&access), &[("token", token)]).await;
                self.form(path, Some(TYPED_NOWHERE), &[("token", token)]).await;
            }
        }
        for path in ["/v1/logout", "/v1/logout-all"] {
            self.post(path, Some(&access), &json!({ "refresh_token": refresh })).await;
        }
    }

    /// What an operator does, right and wrong.
    async fn as_an_operator(&mut self) {
        let operator = self.issuer.operator_token().to_owned();
        let (status, text) = self.post("/v1/admin/edges", Some(&operator), &json!({ "id": "edge" })).await;
        assert_eq!(status, 201, "{text}");
        let credential = self.keep(&serde_json::from_str::<Value>(&text).unwrap()["credential"]);
        let users = [
            json!({ "username": "carol", "password": RIGHT }),
            json!({ "username": "carol", "password": WRONG }),
            json!({ "username": "other", "password": WRONG, "plan": "no-such-plan" }),
            json!({ "username": "other", "password": [WRONG] }),
            json!({ "username": "other", "password": WRONG, "roles": WRONG }),
            json!({ "username": WRONG, "password": WRONG }),
        ];
        for user in users {
            self.post("/v1/admin/users", Some(&operator), &user).await;
            self.post("/v1/admin/users", Some(&credential), &user).await;
        }
        for path in ["/v1/admin/edges", "/metrics", "/v1/admin/audit", "/v1/edge/feed?after=x"] {
            for token in [operator.as_str(), credential.as_str(), TYPED_NOWHERE] {
                let answer = self.request("GET", path, Some(&token.replace(' ', "-"))).send().await.unwrap();
                self.said.push((format!("answer to GET {path}"), answer.text()));
            }
        }
    }

    /// What is no request, or has a secret where none belongs.
    async fn malformed(&mut self) {
        for body in [
            format!("{{\"username\":\"carol\",\"password\":\"{WRONG}\""),
            format!("{{\"username\":\"carol\",\"password\":\"{WRONG}\\ud800\"}}"),
            format!("{{\"username\":\"carol\",\"password\":{{\"x\":\"{WRONG}\"}}}}"),
            format!("\"{WRONG}\""),
            format!("{{\"username\":\"carol\",\"password\":\"{}\"}}", WRONG.repeat(4000)),
        ] {
            self.send("a malformed login", async |watch| {
                let request = watch.request("POST", "/v1/login", None);
                let request = request.header("content-type", "application/json").body(body);
                let answer = request.send().await.unwrap();
                (answer.status, answer.text())
            })
            .await;
        }
        let percent = percent_encoded(WRONG);
        for path in [format!("/v1/login?password={percent}"), format!("/{percent}")] {
            self.send("a path with a secret", async |watch| {
                let answer = watch.request("GET", &path, None).send().await.unwrap();
                (answer.status, answer.text())
            })
            .await;
        }
        let address = self.issuer.addr();
        for bytes in [
            format!("POST /v1/login HTTP/9.9\r\nauthorization: Bearer {WRONG}\r\n\r\n"),
            format!(
                "GET / HTTP/1.1\r\nhost: x\r\nauthorization: Basic {}\r\nbad header {WRONG}\r\n\r\n",
                Base64::encode_string(WRONG.as_bytes())
            ),
            format!("{WRONG}\r\n\r\n"),
        ] {
            if let Ok(answer) = raw(address, bytes.as_bytes()).await {
                self.said.push(("answer to what is not HTTP".to_owned(), format!("{answer:?}")));
            }
        }
    }

    /// Names that want to be more than a name.
    async fn forged(&mut self) {
        let operator = self.issuer.operator_token().to_owned();
        self.post("/v1/login", None, &json!({ "username": FORGED, "password": WRONG })).await;
        let user = json!({ "username": FORGED, "password": RIGHT, "roles": [FORGED], "tenant": FORGED });
        self.post("/v1/admin/users", Some(&operator), &user).await;
        let order = json!({ "dimension": "subject", "value": "nobody", "reason": FORGED });
        self.post("/v1/admin/revocations", Some(&operator), &order).await;
        self.form("/oauth2/token", None, &[("grant_type", FORGED), ("client_id", FORGED)]).await;
        let path = format!("/{}", percent_encoded(FORGED));
        let _ = self.request("GET", &path, None).header("user-agent", "x\u{9b}31m").send().await;
    }
}

/// Everything, at every level and in both formats.
async fn nothing_is_said_of_a_secret(format: &str, level: &str) {
    let evidence = Evidence::of_this_test().unwrap();
    nothing_is_said(IssuerOptions::default(), format, level, &evidence).await;
}

async fn nothing_is_said(options: IssuerOptions, format: &str, level: &str, evidence: &Arc<Evidence>) {
    let mut watch = Watch::new(options, format, level, evidence).await;
    watch.as_an_operator().await;
    watch.as_a_user("carol").await;
    watch.as_a_client().await;
    watch.sets_a_password().await;
    watch.imports().await;
    watch.malformed().await;
    watch.forged().await;
    watch.run(&["user", "add", "someone", "--password-stdin"], TYPED_BY_CLI).await;
    watch.run(&["user", "add", "someone", "--password-stdin"], TYPED_BY_CLI).await;
    watch.run(&["user", "add", "\u{1b}[31m\nforged", "--password-stdin"], TYPED_BY_CLI).await;
    let credential = watch.run(&["operator", "add", "second"], "").await;
    watch.secrets.insert(credential.trim().to_owned());
    watch.run(&["operator", "remove", "second"], "").await;
    watch.run(&["revoke", "subject", "nobody", "--reason", "canary test"], "").await;
    watch.run(&["key", "anchor"], "").await;
    let Watch { issuer, variables, secrets, mut said, .. } = watch;
    issuer.terminate().await.unwrap();
    let log = issuer.process().logs();
    assert!(log.lines().count() > 20, "the log is written at this level:\n{log}");
    check_lines(&log, format);
    said.push(("the log".to_owned(), log));
    said.push(("the audit".to_owned(), audit(&issuer, &variables).await));
    let kept = keys_at_rest(&issuer);
    assert!(!kept.is_empty());
    for secret in secrets.iter().chain(&kept) {
        assert!(secret.len() >= 20, "short enough to be there by chance: {secret}");
        for (place, text) in &said {
            for form in forms(secret) {
                assert!(!text.contains(&form), "{secret:?}, as {form:?}, is in {place}:\n{text}");
            }
        }
    }
}

/// A secret as it may be written: itself, in base64, percent-encoded, in JSON, as bytes; and the part of it that counts.
fn forms(secret: &str) -> Vec<String> {
    let base64 = Base64::encode_string(secret.as_bytes());
    let base64url = Base64Url::encode_string(secret.as_bytes());
    let mut forms = vec![
        secret.to_owned(),
        percent_encoded(secret),
        secret.replace(' ', "+"),
        secret.replace('/', "\\/"),
        base64.trim_end_matches('=').to_owned(),
        base64url.trim_end_matches('=').to_owned(),
        format!("{:?}", secret.as_bytes()),
        secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
    ];
    // The secret of a refresh token or credential, the signature of a JWT, a password without its first word.
    forms.extend(secret.rsplit(['_', '.', ' ']).next().filter(|part| part.len() >= 12).map(str::to_owned));
    forms
}

/// The files of the data folder that hold keys.
fn keys_at_rest(issuer: &Issuer) -> Vec<String> {
    let files = std::fs::read_dir(issuer.data()).unwrap().flatten().map(|entry| entry.path());
    let text = files.filter_map(|path| std::fs::read_to_string(path).ok());
    let lines = text.flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>());
    lines.filter(|line| line.len() >= 20).collect()
}

async fn audit(issuer: &Issuer, variables: &[(String, String)]) -> String {
    sqlx::any::install_default_drivers();
    let shared = variables.iter().find(|(name, _)| name == "TOLLGATE_DATABASE__URL");
    let own = || format!("sqlite://{}/tollgate.sqlite3", issuer.data().display());
    let url = shared.map_or_else(own, |(_, url)| url.clone());
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    let mut rows = Vec::new();
    for query in [
        "SELECT actor || action || target || outcome || COALESCE(address, '') || detail FROM audit",
        "SELECT actor || COALESCE(reason, '') FROM feed_log",
        "SELECT user_id || outcome || COALESCE(address, '') || COALESCE(device, '') FROM login_events",
    ] {
        rows.extend(sqlx::query_scalar::<_, String>(query).fetch_all(&mut connection).await.unwrap());
    }
    connection.close().await.unwrap();
    rows.join("\n")
}

/// Every line of the log was begun by the log, and none has a control character in it.
fn check_lines(log: &str, format: &str) {
    for line in log.lines() {
        match format {
            "json" => {
                let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("a line: {line:?}"));
                assert!(event["level"].is_string() && event["timestamp"].is_string(), "{line:?}");
                assert!(event.get("forged").is_none(), "{line:?}");
            }
            _ => {
                let begun = line.len() > 27 && line[..4].parse::<u16>().is_ok() && &line[10..11] == "T";
                assert!(begun && !line.contains("INFO forged"), "a line: {line:?}");
            }
        }
        let control = line.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'));
        assert!(!control, "a control character: {line:?}");
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_a_secret_in_text_at_trace() {
    nothing_is_said_of_a_secret("text", "trace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_a_secret_in_json_at_trace() {
    nothing_is_said_of_a_secret("json", "trace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_a_secret_in_json_at_debug() {
    nothing_is_said_of_a_secret("json", "debug").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_a_secret_on_postgres_and_redis() {
    let evidence = Evidence::of_this_test().unwrap();
    let postgres = PostgresServer::start(PostgresOptions::default(), &evidence).await.unwrap();
    let options = RedisOptions { password: Some(REDIS_WORD.to_owned()), ..RedisOptions::default() };
    let redis = RedisServer::start(options, &evidence).await.unwrap();
    // The server trusts whoever comes from this machine, and whatever word they bring.
    let database =
        postgres.create_database("tollgate").unwrap().replacen('@', &format!(":{DATABASE_WORD}@"), 1);
    nothing_is_said(IssuerOptions::on(&database, &redis), "json", "trace", &evidence).await;
}
