//! The demo does what the README says: it walks the whole path and ends well, or stays and says where everything is.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tollgate_tests::client::Client;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::process::Process;

#[test]
fn the_demo_walks_the_whole_path() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).arg("--once").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for step in ["no token: 401", "login", "admitted: 200", "quota: exactly 100", "revoked: refused"] {
        assert!(said.contains(step), "`{step}` is missing from:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_stays_and_says_where_everything_is() {
    let evidence = Evidence::of_this_test().unwrap();
    let ready_file = evidence.file("ready.json");
    let arguments = ["--ready-file", ready_file.to_str().unwrap()].map(str::to_owned);
    let demo = env!("CARGO_BIN_EXE_demo").as_ref();
    let process = Process::spawn("demo", demo, &arguments, &[], evidence.folder()).unwrap();
    let ready: Value = eventually("the ready file", Duration::from_secs(300), async || {
        process.ensure_running().map_err(|error| error.to_string())?;
        let text = std::fs::read_to_string(&ready_file).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    let text = |name: &str| ready[name].as_str().unwrap_or_else(|| panic!("no {name} in {ready}")).to_owned();
    let client = Client::new();
    let login = serde_json::json!({ "username": text("username"), "password": text("password") });
    let login = client.post(&format!("{}/v1/login", text("issuer"))).json(&login).send_ok().await.unwrap();
    let token = login.json_at("/access_token").unwrap().as_str().unwrap().to_owned();
    let answer = client.get(&format!("{}/x", text("edge"))).bearer(&token).send().await.unwrap();
    assert_eq!(answer.status, 200, "{answer}");
    let edges = client.get(&format!("{}/v1/admin/edges", text("issuer"))).bearer(&text("operator_token"));
    assert_eq!(edges.send().await.unwrap().status, 200);
    assert_eq!(client.get(&format!("{}/x", text("upstream"))).send().await.unwrap().status, 200);
    process.signal("INT").unwrap();
    assert!(process.wait_exit(Duration::from_secs(20)).await.unwrap().success());
}
