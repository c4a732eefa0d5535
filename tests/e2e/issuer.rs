//! The issuer as a process: it ends in an orderly way, and what it acknowledged outlives it.

use std::time::Duration;

use tollgate_tests::client::Client;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_issuer_answers_the_polls_it_holds_and_ends_well() {
    let evidence = Evidence::of_this_test().unwrap();
    let issuer = Issuer::start(IssuerOptions::default(), &evidence).await.unwrap();
    let credential = issuer.add_edge("edge").await.unwrap();
    let client = Client::new();
    let epoch = epoch_of(&issuer, &credential, &client).await;
    let url = format!("{}/v1/edge/feed?epoch={epoch}&after=2&wait=20", issuer.base_url());
    let held = {
        let (url, credential) = (url.clone(), credential.clone());
        tokio::spawn(async move { Client::new().get(&url).bearer(&credential).send().await })
    };
    eventually("the poll to be held", Duration::from_secs(5), async || {
        let metrics =
            issuer.operator("GET", "/metrics").send_ok().await.map_err(|error| error.to_string())?.text();
        let open = metrics
            .lines()
            .find(|line| line.contains("open") && line.contains("poll") && !line.starts_with('#'));
        let open = open.unwrap_or_default().to_owned();
        if open.ends_with(" 1") { Ok(()) } else { Err(open) }
    })
    .await
    .unwrap();
    let ended = issuer.terminate().await.unwrap();
    assert!(ended.success(), "{ended}");
    let answer = held.await.unwrap().expect("the held poll is answered");
    assert_eq!(answer.status, 200);
    assert!(!answer.body.is_empty());
}

/// The epoch of the feed, from a message that is opened as an edge opens it.
async fn epoch_of(issuer: &Issuer, credential: &str, client: &Client) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    use tollgate_shared::wire::feed::TrustAnchor;

    let anchor = Base64UrlUnpadded::decode_vec(issuer.trust_anchor()).unwrap();
    let anchor = TrustAnchor::new(&anchor.try_into().unwrap()).unwrap();
    let answer = client
        .get(&format!("{}/v1/edge/feed", issuer.base_url()))
        .bearer(credential)
        .send_ok()
        .await
        .unwrap();
    let message = anchor.open(&answer.body).unwrap().message;
    assert_eq!(message.to.0, 2, "a new issuer has told of its keys and its plans");
    message.epoch.to_hex()
}
