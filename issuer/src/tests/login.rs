//! Logins and the tokens they give.

use tollgate_shared::revocation::BLOCK_INDICES;
use tollgate_shared::token::{Algorithm, Claims, RustCrypto, TokenRules, UntrustedToken};

use super::*;

fn claims(bench: &Bench, token: &str) -> Claims {
    let rules = TokenRules {
        issuer: bench.app.settings.issuer.clone(),
        audiences: vec!["api".to_owned()],
        accept_access_token: true,
        accept_plain: false,
        require_status: true,
        clock_skew_seconds: 0,
    };
    let token = UntrustedToken::parse(token.as_bytes()).unwrap();
    let token =
        token.verify(&bench.app.keys.signing.view().verifying, &[Algorithm::EdDsa], &RustCrypto).unwrap();
    token.live(&rules, bench.host.seconds().plus(2)).unwrap().claims
}

#[tokio::test]
async fn login_gives_a_token_of_this_user() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let answer = bench
        .post("/v1/login", None, &json!({ "username": "alice", "password": PASSWORD, "scope": "read" }))
        .await;
    assert_eq!(answer.header(header::CACHE_CONTROL), "no-store");
    let body = answer.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["scope"], "read");
    assert_eq!(body["user"], json!({ "id": id, "username": "alice", "plan": "free" }));
    let claims = claims(&bench, body["access_token"].as_str().unwrap());
    assert_eq!(claims.subject.as_str(), id);
    assert_eq!(claims.client.unwrap().as_str(), "first-party");
    assert_eq!(claims.scopes, ["read"]);
    assert_eq!(claims.roles, ["member"]);
    assert_eq!(claims.plan.unwrap().as_str(), "free");
    assert!(claims.session.unwrap().as_str().starts_with("s_"));
    let life = claims.expires_at.0 - claims.issued_at.unwrap().0;
    assert!((855..=900).contains(&life), "{life}");
    assert_eq!(body["expires_in"], life);
}

#[tokio::test]
async fn every_failed_login_is_answered_with_the_same_bytes() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    bench.user("bob").await;
    let disable = "UPDATE users SET disabled = 1 WHERE username = 'bob'";
    let database = format!("sqlite://{}", bench.folder.path().join("tollgate.sqlite3").display());
    let pool = sqlx::SqlitePool::connect(&database).await.unwrap();
    sqlx::query(disable).execute(&pool).await.unwrap();
    let mut answers = Vec::new();
    for (name, password) in [("alice", "wrong password"), ("nobody", PASSWORD), ("bob", PASSWORD)] {
        let answer = bench.post("/v1/login", None, &json!({ "username": name, "password": password })).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        answers.push((answer.headers, answer.body));
    }
    for _ in 0..5 {
        bench.post("/v1/login", None, &json!({ "username": "alice", "password": "wrong password" })).await;
    }
    // Locked by now, and the password is right.
    let answer = bench.post("/v1/login", None, &json!({ "username": "alice", "password": PASSWORD })).await;
    answers.push((answer.headers, answer.body));
    for answer in &answers {
        assert_eq!(*answer, answers[0]);
    }
}

#[tokio::test]
async fn a_faulty_login_is_told_which_member_is_wrong_and_never_its_value() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let cases = [
        (json!({ "username": "alice" }), "password: is missing"),
        (json!({ "username": "alice", "password": PASSWORD, "pin": 1 }), "pin: is not known"),
        (json!({ "username": "alice", "password": 12_345_678 }), "password: has the wrong type or value"),
        (json!({ "username": "alice", "password": "short" }), "password: must be 8 to 1024 bytes long"),
        (
            json!({ "username": "alice", "password": "x".repeat(1025) }),
            "password: must be 8 to 1024 bytes long",
        ),
        (json!({ "username": "", "password": PASSWORD }), "username: must be"),
    ];
    for (body, expected) in cases {
        let answer = bench.post("/v1/login", None, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(expected), "{detail}");
    }
    let scope = json!({ "username": "alice", "password": PASSWORD, "scope": "admin" });
    let answer = bench.post("/v1/login", None, &scope).await;
    assert_eq!(
        (answer.status, answer.json()["title"].as_str()),
        (StatusCode::BAD_REQUEST, Some("invalid_scope"))
    );
    let answer = bench.form("/v1/login", None, "username=alice").await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let long = json!({ "username": "alice", "password": "x".repeat(70_000) });
    assert_eq!(bench.post("/v1/login", None, &long).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_password_is_the_same_however_its_accents_were_typed() {
    let bench = Bench::new().await;
    let new = json!({ "username": "zoe", "password": "caf\u{e9} cr\u{e8}me" });
    bench.post("/v1/admin/users", Some(&bench.operator), &new).await;
    let typed = json!({ "username": "zoe", "password": "cafe\u{301} cre\u{300}me" });
    assert_eq!(bench.post("/v1/login", None, &typed).await.status, StatusCode::OK);
}

async fn store_hash(bench: &Bench, username: &str, hash: &str) {
    let database = format!("sqlite://{}", bench.folder.path().join("tollgate.sqlite3").display());
    let pool = sqlx::SqlitePool::connect(&database).await.unwrap();
    let update = "UPDATE users SET password_hash = ? WHERE username = ?";
    let done = sqlx::query(update).bind(hash).bind(username).execute(&pool).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

#[tokio::test]
async fn a_hash_that_another_system_made_lets_its_user_in_and_a_corrupt_one_nobody() {
    let bench = Bench::new().await;
    bench.user("alice").await;
    let try_it = async |password: &str| {
        let body = json!({ "username": "alice", "password": password });
        let answer = bench.post("/v1/login", None, &body).await;
        (answer.status, answer.body)
    };
    let bcrypt = "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";
    store_hash(&bench, "alice", bcrypt).await;
    assert_eq!(try_it("correctbatteryhorsestapler").await.0, StatusCode::OK);
    let wrong = try_it(PASSWORD).await;
    assert_eq!(wrong.0, StatusCode::UNAUTHORIZED);
    store_hash(&bench, "alice", "$2b$04$nonsense").await;
    assert_eq!(try_it("correctbatteryhorsestapler").await, wrong);
}

#[tokio::test]
async fn a_common_password_or_one_with_the_username_is_refused_when_it_is_set_and_only_then() {
    let bench = Bench::new().await;
    for (password, rule) in [
        ("Baseball", "password: is one of the most common passwords"),
        ("xx-gwendolyn-xx", "password: must not contain the username or the service's name"),
        ("the tollgate is open", "password: must not contain the username or the service's name"),
        ("\u{e9}\u{e9}\u{e9}\u{e9}", "password: must have at least 8 characters and at most 1024 bytes"),
    ] {
        let body = json!({ "username": "Gwendolyn", "password": password });
        let answer = bench.post("/v1/admin/users", Some(&bench.operator), &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.json()["detail"], rule);
        let login = bench.post("/v1/login", None, &body).await;
        assert_eq!(login.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_full_queue_is_answered_with_503_and_a_date_to_come_back() {
    let bench = Bench::with(|settings| {
        let password = PasswordSettings { workers: 1, queue_max: 0, ..settings.password };
        Settings { password, ..settings }
    })
    .await;
    bench.user("alice").await;
    let busy = bench.app.passwords.occupy().await;
    let body = json!({ "username": "alice", "password": PASSWORD });
    let answer = bench.post("/v1/login", None, &body).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header(header::RETRY_AFTER), "2");
    drop(busy);
    bench.login("alice").await;
}

#[tokio::test]
async fn status_indices_are_never_handed_out_twice() {
    let bench = Bench::new().await;
    let other = bench.another().await;
    let mut seen = std::collections::BTreeSet::new();
    for turn in 0..40 {
        let app = if turn % 2 == 0 { &bench.app } else { &other };
        assert!(seen.insert(app.indices.next().await.unwrap().index));
        if turn % 10 == 9 {
            // The hour of both blocks is over.
            bench.host.advance(3_600_000);
        }
    }
    // One that starts where another crashed takes a block of its own.
    let restarted = bench.another().await;
    assert!(seen.insert(restarted.indices.next().await.unwrap().index));
    let blocks: std::collections::BTreeSet<u32> = seen.iter().map(|index| index.0 / BLOCK_INDICES).collect();
    assert_eq!(blocks.len(), 9);
}

#[tokio::test]
async fn a_cut_off_covers_tokens_that_are_dated_ahead_of_the_clock() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let edge = bench.edge("eu-1").await;
    let order = json!({ "dimension": "subject", "value": id });
    let revoke = async || {
        let answer = bench.post("/v1/admin/revocations", Some(&bench.operator), &order).await;
        assert_eq!(answer.status, StatusCode::CREATED);
    };
    // Twice within one second: the token between them is dated after the first.
    revoke().await;
    let between = bench.login("alice").await;
    revoke().await;
    let mut state = None;
    bench.poll(&edge, &mut state, 0).await;
    let read = |body: &Value| claims(&bench, body["access_token"].as_str().unwrap());
    let covered = |state: &Option<FeedState>, claims: &Claims| {
        state.as_ref().unwrap().revoked.cutoffs.covering("", claims, true).is_some()
    };
    assert!(covered(&state, &read(&between)));
    // And with the date set back by half a minute since the login.
    bench.host.advance(60_000);
    let ahead = read(&bench.login("alice").await);
    assert!(!covered(&state, &ahead));
    bench.host.wall.fetch_sub(30_000, Ordering::SeqCst);
    revoke().await;
    bench.poll(&edge, &mut state, 0).await;
    assert!(covered(&state, &ahead));
}

#[tokio::test]
async fn a_login_in_the_second_of_a_cut_off_gives_a_token_that_it_does_not_cover() {
    let bench = Bench::new().await;
    let id = bench.user("alice").await;
    let before = bench.login("alice").await;
    let edge = bench.edge("eu-1").await;
    let order = json!({ "dimension": "subject", "value": id });
    let answer = bench.post("/v1/admin/revocations", Some(&bench.operator), &order).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let after = bench.login("alice").await;
    let mut state = None;
    bench.poll(&edge, &mut state, 0).await;
    let cutoffs = state.unwrap().revoked.cutoffs;
    let covered = |body: &Value| {
        let claims = claims(&bench, body["access_token"].as_str().unwrap());
        cutoffs.covering("", &claims, true).is_some()
    };
    assert!(covered(&before));
    assert!(!covered(&after));
}
