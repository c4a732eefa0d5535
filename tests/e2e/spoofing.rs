//! What reaches the application through a real Envoy: never an identity the client wrote, never a protected path by
//! another spelling.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tollgate_tests::client::{Response, raw};
use tollgate_tests::stack::{Stack, StackOptions};

async fn stack() -> (Stack, String) {
    let options = StackOptions { concurrency: 1, ..StackOptions::default() };
    let options = options.edit_plugin(|plugin| {
        plugin["rules"] = json!([
            { "match": { "prefix": "/public/" }, "requires": "none" },
            { "match": { "path": "/" }, "requires": "token" },
            { "match": { "prefix": "/private/" }, "requires": "token" },
            { "match": { "prefix": "/admin/" }, "requires": { "roles": ["admin"] } },
            { "match": { "prefix": "/" }, "requires": "token" },
        ]);
    });
    // Envoy drops trailers on HTTP/1 unless told not to; here they go all the way.
    let stack = Stack::start(options.edit_bootstrap(|bootstrap| {
        let trailers = json!({ "enable_trailers": true });
        let resources = &mut bootstrap["static_resources"];
        let manager = &mut resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
        manager["http_protocol_options"]["enable_trailers"] = json!(true);
        resources["clusters"][0]["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http_protocol_options": trailers },
            },
        });
    }))
    .await
    .unwrap();
    stack.issuer.add_user("alice", "correct horse battery", "free", &[], &["read"]).await.unwrap();
    let token = stack.issuer.login("alice", "correct horse battery").await.unwrap().access_token;
    (stack, token)
}

async fn send(address: SocketAddr, request: &[u8]) -> Option<Response> {
    raw(address, request).await.unwrap().response
}

fn upstream_headers(response: &Response) -> Vec<(String, String)> {
    serde_json::from_value(response.json().unwrap()["headers"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_can_write_an_identity_header() {
    let (stack, token) = stack().await;
    let subject = {
        let answer = stack.get("/private/x", &token).await.unwrap();
        let headers = upstream_headers(&answer);
        headers.into_iter().find(|(name, _)| name == "x-tollgate-subject").unwrap().1
    };
    let forged = [
        "x-tollgate-subject: admin",
        "X-Tollgate-Subject: admin",
        "X-TOLLGATE-SUBJECT: admin",
        "x-tollgate-subject: admin\r\nx-tollgate-subject: root",
        "x-tollgate-roles: admin",
        "x-tollgate-: admin",
        "x_tollgate_subject: admin",
        "X-Tollgate_Subject: admin",
        "x-tollgate_subject: admin",
        "connection: x-tollgate-subject",
        "connection: close, x-tollgate-subject\r\nx-tollgate-subject: admin",
        "x-tollgate-subject:admin",
        "x-tollgate-subject: ",
        "x-tollgate-subject : admin",
        " x-tollgate-subject: admin",
        "ratelimit: admin",
        "x-ratelimit-limit: admin",
    ];
    let mut reached = 0;
    for header in forged {
        for (path, authorization) in
            [("/public/x", String::new()), ("/private/x", format!("authorization: Bearer {token}\r\n"))]
        {
            let request = format!("GET {path} HTTP/1.1\r\nhost: api\r\n{authorization}{header}\r\n\r\n");
            let Some(answer) = send(stack.envoy.addr(), request.as_bytes()).await else { continue };
            if answer.status != 200 {
                assert_eq!(answer.status, 400, "{header:?} on {path}");
                continue;
            }
            reached += 1;
            for (name, value) in upstream_headers(&answer) {
                let ours = name.replace('_', "-").to_ascii_lowercase().starts_with("x-tollgate")
                    || name.contains("ratelimit");
                let allowed = name == "x-tollgate-subject" && value == subject && path == "/private/x";
                assert!(!ours || allowed, "{header:?} on {path}: the application got {name}: {value}");
            }
        }
    }
    assert!(reached >= 16, "only {reached} requests reached the application, so little was shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_can_write_an_identity_trailer() {
    let (stack, token) = stack().await;
    let body = "4\r\nbody\r\n0\r\nx-tollgate-subject: admin\r\nx-other: 1\r\n\r\n";
    let request = format!(
        "POST /private/x HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\ntrailer: x-tollgate-subject, x-other\r\n\r\n{body}"
    );
    let answer = send(stack.envoy.addr(), request.as_bytes()).await.unwrap();
    assert_eq!(answer.status, 200);
    let trailers = answer.json().unwrap()["trailers"].clone();
    assert_eq!(trailers, json!([["x-other", "1"]]));
}

/// Spellings of a path below `/admin/`, and of one that climbs out of `/public/`.
fn spellings() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/admin/x",
        "//admin/x",
        "/admin//x",
        "/./admin/x",
        "/public/../admin/x",
        "/public/./../admin/x",
        "/public/%2e%2e/admin/x",
        "/public/%2E%2E/admin/x",
        "/public/.%2e/admin/x",
        "/public/..%2fadmin/x",
        "/public/..%2Fadmin/x",
        "/public%2f../admin/x",
        "/public/..%5cadmin/x",
        "/public/..\\admin/x",
        "/public\\..\\admin\\x",
        "/public/..;/admin/x",
        "/public/..;a=b/admin/x",
        "/public/.;/../admin/x",
        "/public/%2e%2e;/admin/x",
        "/public/;/../admin/x",
        "/public/x/../../admin/x",
        "/public/%252e%252e/admin/x",
        "/public/..%252fadmin/x",
        "/public/%c0%ae%c0%ae/admin/x",
        "/public/..%c0%afadmin/x",
        "/public/%u002e%u002e/admin/x",
        "/public/../",
        "/public/..",
        "/public/../../../admin/x",
        "/Admin/x",
        "/ADMIN/x",
        "/admin%2fx",
        "/admin;x/y",
        "/admin/;x",
        "/%61dmin/x",
        "/admin%00/x",
        "/admin/x#public",
        "/public/#/../admin/x",
        "http://api/admin/x",
        "http://api/public/../admin/x",
        "/admin?x=/public/",
        "/public/?/../admin/x",
        "/public/x?y=../../admin",
        "*",
        "admin/x",
        "/public/\tadmin",
        "/public/%0a/admin",
        "/public/%0d%0aadmin",
    ]
    .map(str::to_owned)
    .to_vec();
    let corpus = tollgate_tests::workspace_root().join("../shared/corpora/path-traversal");
    match std::fs::read_to_string(corpus.join("directory_traversal.txt")) {
        Ok(text) => {
            paths.extend(text.lines().filter(|line| !line.is_empty()).map(|line| format!("/public/{line}")))
        }
        Err(_) => super::not_run("the path-traversal corpus is not in ../shared/corpora"),
    }
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_gets_round_the_policy() {
    let (stack, token) = stack().await;
    let mut reached = 0;
    for path in spellings() {
        // Bytes that would end the request line are another test's.
        if path.bytes().any(|byte| byte == b' ' || byte == b'\r' || byte == b'\n') {
            continue;
        }
        let request = format!("GET {path} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {token}\r\n\r\n");
        let Some(answer) = send(stack.envoy.addr(), request.as_bytes()).await else { continue };
        assert_ne!(answer.status, 500, "{path}");
        if answer.status != 200 {
            continue;
        }
        reached += 1;
        let seen: Value = answer.json().unwrap();
        let seen = seen["path"].as_str().unwrap().to_owned();
        // What the application was asked for, as the most lenient of servers would read it.
        assert!(!leniently(&seen).starts_with("/admin/"), "{path:?} reached {seen:?}");
    }
    assert!(reached > 3, "only {reached} paths reached the application, so little was shown");
    assert_eq!(stack.envoy.stat("wasm.tollgate.vm_reload").await.unwrap(), 0);
}

/// A path as a server would read it that decodes twice, drops parameters, folds case and takes backslashes for slashes.
fn leniently(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let decoded = decode(&decode(path)).to_ascii_lowercase().replace('\\', "/");
    let mut kept: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut place) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(place) {
        let escape = bytes.get(place + 1..place + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match escape.filter(|_| *byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                decoded.push(value);
                place += 3;
            }
            None => {
                decoded.push(*byte);
                place += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
