//! Rows 24 and 25: an issuer that dies with a revocation half done, and one that an operator should not have started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::{AnyConnection, Connection as _};
use tollgate_tests::client::Client;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions, Program};
use tollgate_tests::stack::StackOptions;

use super::{Edge, FEED, REFUSED, options};

const DATABASE: &str = "tollgate.sqlite3";

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_whose_issuer_died_before_it_was_published_is_refused_once_it_is_back() {
    let options = options();
    let issuer = IssuerOptions { program: Program::Crashing, ..options.issuer.clone() };
    let options = StackOptions { issuer, ..options };
    let mut edge = Edge::start_with(options, Evidence::of_this_test().unwrap()).await;
    let mut seen = Vec::new();
    for step in ["revoke.committed", "outbox.before_publish"] {
        edge.stack.issuer.restart_once_with(&[("TOLLGATE_CRASH_AT", step)]).await.unwrap();
        let (good, token) = (edge.token().await, edge.token().await);
        edge.all_come_to(200, &token).await;
        let url = format!("{}/v1/logout", edge.stack.issuer.base_url());
        let answer = Client::fresh_connections().post(&url).bearer(&token).send().await;
        assert!(answer.is_err(), "{step} was not reached: {}", answer.unwrap());
        // Committed, but nobody was told: neither the client nor the edge.
        edge.all_answer(200, &token, step).await;
        let published = tokio::time::Instant::now();
        edge.stack.issuer.restart().await.unwrap();
        edge.all_come_to(401, &token).await;
        seen.push(format!("{step}: refused {} ms after the start began", published.elapsed().as_millis()));
        edge.all_answer(200, &good, step).await;
    }
    println!("row 24: {}", seen.join("; "));
}

/// Copies what an issuer has now: what is written later, the copy lacks.
async fn back_up(issuer: &Issuer, folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    for entry in std::fs::read_dir(issuer.data()).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(DATABASE) {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
    }
    let copied = format!("VACUUM INTO '{}'", folder.join(DATABASE).display());
    execute(&issuer.data().join(DATABASE), &copied).await;
}

async fn execute(database: &Path, statement: &str) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&format!("sqlite://{}", database.display())).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn start(name: &str, data: PathBuf, evidence: &Arc<Evidence>) -> Issuer {
    let options = IssuerOptions { data: Some(data), ..options().issuer };
    Issuer::start_named(name, options, evidence).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_backup_and_an_issuer_with_another_feed_key_are_not_believed() {
    let evidence = Evidence::of_this_test().unwrap();
    let edge = Edge::start_with(options(), Arc::clone(&evidence)).await;
    let good = edge.token().await;
    let folders = ["restored", "other"].map(|name| evidence.file(name));
    for folder in &folders {
        back_up(&edge.stack.issuer, folder).await;
    }
    // It knows the edge and the users, and the same keys sign its tokens; but not its feed.
    execute(&folders[1].join(DATABASE), "DELETE FROM sealed_secrets WHERE name = 'feed'").await;
    let revoked = edge.revoked_token().await;
    let mut seen = Vec::new();
    for (name, data) in ["restored", "other"].into_iter().zip(folders) {
        let wrong = start(name, data, &evidence).await;
        assert_eq!(wrong.trust_anchor() == edge.stack.issuer.trust_anchor(), name == "restored");
        let refused = edge.counted(REFUSED).await;
        edge.proxy().retarget(wrong.addr());
        let refused = edge.counts(REFUSED, refused + 5).await - refused;
        edge.all_answer(401, &revoked, name).await;
        edge.all_answer(200, &good, name).await;
        edge.proxy().retarget(edge.stack.issuer.addr());
        let later = edge.revoked_token().await;
        edge.all_answer(200, &good, name).await;
        edge.all_answer(401, &later, name).await;
        seen.push(format!("{name}: {refused} messages refused"));
    }
    assert!(edge.proxy().tally(FEED).statuses.keys().eq([&200]), "each was an answer that might be believed");
    assert_eq!(edge.reloads().await, 0);
    println!("row 25: feeds of a lower position and of another key → {}; the state stayed", seen.join(", "));
}
