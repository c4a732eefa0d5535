//! The issuer answers as its OpenAPI document says, whatever it is asked.

use serde_json::{Value, json};
use tollgate_tests::client::Client;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions};
use tollgate_tests::schemathesis::Examination;

const PASSWORD: &str = "correct horse battery";
const SEED: u32 = 20_261;
const EXAMPLES: u32 = 12;
const CHECKS: [&str; 4] = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
];
/// Where the document is.
const DOCUMENT: &str = "/openapi.json";
/// What people do with their own token.
const OF_USERS: &str = "^/v1/(sessions|logout)";
/// What edges do with their credential.
const OF_EDGES: &str = "^/v1/edge/";
/// What makes and removes operators.
const OF_OPERATORS: &str = "^/v1/admin/operators";
/// Ends the session of the token that everything else needs.
const ENDS_THE_SESSION: &str = "^/v1/logout";

/// Nothing is left out. The requests use what earlier answers named: as an operator, keys are withdrawn, edges removed, users and
/// clients deleted. So operators come last, after everybody whose standing that takes away, and the calls that remove operators come
/// after all others.
#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_the_document_says() {
    let evidence = Evidence::of_this_test().unwrap();
    let options = IssuerOptions::default()
        // A poll that is held is no answer that is worth waiting for.
        .with("FEED__LONG_POLL_MAX_SECONDS", "1")
        // What is tested is not how soon a source of guesses is refused.
        .with("THROTTLE__SPRAYING_ADDRESS_ACCOUNTS", "90000")
        .with("THROTTLE__SPRAYING_NETWORK_ACCOUNTS", "90000")
        .with("THROTTLE__SPRAYING_TOTAL_ACCOUNTS", "90000");
    let issuer = Issuer::start(options, &evidence).await.unwrap();
    let base_url = issuer.base_url();
    let document = Client::new().get(&format!("{base_url}/openapi.json")).send_ok().await.unwrap();
    let expected = operations(&document.json().unwrap());
    issuer.add_user("alice", PASSWORD, "free", &[], &["read"]).await.unwrap();
    let user = issuer.login("alice", PASSWORD).await.unwrap().access_token;
    let leaver = issuer.login("alice", PASSWORD).await.unwrap().access_token;
    let edge = issuer.add_edge("edge").await.unwrap();

    println!("seed {SEED}");
    let others = format!("{OF_USERS}|{OF_EDGES}|{OF_OPERATORS}|^{DOCUMENT}$");
    let examine = async |name: &str, token: &str, paths: &str, but: Option<&str>| -> usize {
        let (name, token, paths) = (name.to_owned(), token.to_owned(), paths.to_owned());
        let (but, base_url) = (but.map(str::to_owned), base_url.clone());
        let folder = evidence.folder().to_owned();
        let examined = tokio::task::spawn_blocking(move || {
            let examination = Examination {
                name: &name,
                base_url: &base_url,
                token: &token,
                paths: &paths,
                but: but.as_deref(),
                checks: &CHECKS,
                examples: EXAMPLES,
                seed: SEED,
            };
            examination.run(&folder)
        });
        let (examined, wrote) = examined.await.unwrap().unwrap();
        assert!(examined.failures.is_empty() && examined.errors.is_empty(), "{wrote}");
        let found = examined.operations;
        assert_eq!((found.tested, found.errored, found.skipped), (found.selected, 0, 0), "{wrote}");
        println!("{} requests to {} operations", examined.test_cases.generated, found.tested);
        found.tested
    };
    let mut tested = examine("user", &user, OF_USERS, Some(ENDS_THE_SESSION)).await;
    tested += examine("edge", &edge, OF_EDGES, None).await;
    let feed = Client::new().get(&format!("{base_url}/v1/edge/feed")).bearer(&edge).send().await.unwrap();
    assert_eq!(feed.status, 200, "{feed}");
    // Most of this is answered to somebody whose session is over: it ends once only.
    tested += examine("leaver", &leaver, ENDS_THE_SESSION, None).await;
    tested += examine("operator", issuer.operator_token(), "^/", Some(&others)).await;
    issuer.operator("GET", "/v1/admin/edges").send_ok().await.unwrap();
    // Who removes everybody is removed too.
    tested += examine("operators", issuer.operator_token(), OF_OPERATORS, None).await;
    assert_eq!(tested, expected, "an operation was left out");
    issuer.process().ensure_running().unwrap();
}

/// How many operations the document has, beside itself.
fn operations(document: &Value) -> usize {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let paths = document["paths"].as_object().unwrap();
    let others = paths.iter().filter(|(path, _)| path.as_str() != DOCUMENT);
    let count = |item: &Value| METHODS.iter().filter(|method| item.get(*method).is_some()).count();
    let found = others.map(|(_, item)| count(item)).sum();
    assert!(found >= 20, "{}", json!(paths.keys().collect::<Vec<_>>()));
    found
}
