//! Signing keys follow each other under load, and no good token is refused for it, whatever strangers send meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tollgate_tests::client::Client;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::IssuerOptions;
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};
use tollgate_tests::redis_server::{RedisOptions, RedisServer};
use tollgate_tests::stack::{Stack, StackOptions};

use crate::foreign::{Algorithm, ForeignIssuer, encode};

const PASSWORD: &str = "correct horse battery";
const ROTATE_SECONDS: u64 = 5;
const ROTATIONS: usize = 4;
const STRANGERS: usize = 10_000;
const STRANGERS_AT_ONCE: usize = 16;
/// The edge asks for the feed anew when an answer comes, or after this long without one.
const LONG_POLL_SECONDS: u64 = 20;
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_follow_each_other_under_load_cost_no_good_token_its_entry() {
    let evidence = Evidence::of_this_test().unwrap();
    let postgres = PostgresServer::start(PostgresOptions::default(), &evidence).await.unwrap();
    let redis = RedisServer::start(RedisOptions::default(), &evidence).await.unwrap();
    let database = postgres.create_database("tollgate").unwrap();
    let mut stack = Stack::start_with(options(&database, &redis), evidence).await.unwrap();
    stack.issuer.add_user("alice", PASSWORD, "free", &[], &["read"]).await.unwrap();
    let load = Load::start(&stack).await;

    rotations_come_and_strangers_change_nothing(&stack, &load).await;
    a_withdrawn_key_is_refused_and_the_next_one_is_not(&stack, &load).await;
    for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
        // The load goes to Envoy, and waits with its refreshes until the issuer is back.
        stack.issuer.restart_with("KEYS__ALGORITHM", algorithm.name()).await.unwrap();
        eventually(&format!("a token signed with {}", algorithm.name()), SOON, async || {
            load.newest_is_of(algorithm).map_err(|seen| format!("{seen:?}"))
        })
        .await
        .unwrap();
        load.check();
    }
    let seen = load.stop().await;
    let algorithms: BTreeSet<&str> = seen.algorithms.iter().map(String::as_str).collect();
    assert_eq!(algorithms, Algorithm::ALL.map(Algorithm::name).into(), "tokens of all of them");
    println!(
        "{} tokens of {} keys, admitted {} times, the oldest at {:?}",
        seen.tokens, seen.keys, seen.admitted, seen.oldest
    );

    keys_whose_tokens_are_over_are_published_no_more(&stack, &postgres).await;
}

fn options(database: &str, redis: &RedisServer) -> StackOptions {
    let issuer = IssuerOptions::on(database, redis)
        .with("KEYS__ROTATE_EVERY_SECONDS", &ROTATE_SECONDS.to_string())
        .with("KEYS__PREPUBLISH_SECONDS", "2")
        .with("TOKEN__LIFETIME_SECONDS", "60");
    StackOptions { issuer, ..StackOptions::default() }.edit_plugin(|plugin| {
        plugin["providers"][0]["algorithms"] = json!(["EdDSA", "ES256", "RS256"]);
        plugin["origin"]["long_poll_seconds"] = json!(LONG_POLL_SECONDS);
        plugin["rules"][1]["quotas"] = json!([]);
    })
}

#[expect(clippy::disallowed_methods, reason = "how many polls there may be depends on how long they went on")]
async fn rotations_come_and_strangers_change_nothing(stack: &Stack, load: &Load) {
    // As long as two keys, with nobody else there, for the number of polls that is usual.
    let (quiet_from, polls) = (Instant::now(), polls(stack).await);
    load.rotations(2).await;
    let (quiet, quiet_polls) = (quiet_from.elapsed(), self::polls(stack).await - polls);

    let (loud_from, polls) = (Instant::now(), self::polls(stack).await);
    let admitted = load.admitted();
    let refused = strangers(stack).await;
    assert_eq!(refused, BTreeMap::from([(401, STRANGERS)]), "what strangers were answered with");
    assert!(load.admitted() > admitted + 50, "good tokens were admitted meanwhile");
    load.rotations(ROTATIONS).await;
    let (loud, loud_polls) = (loud_from.elapsed(), self::polls(stack).await - polls);
    // A change of the keys takes two or three polls, and strangers none.
    let usual = quiet_polls as f64 / quiet.as_secs_f64();
    let found = loud_polls as f64 / loud.as_secs_f64();
    println!(
        "polls in {quiet:?} without strangers: {quiet_polls}; in {loud:?} with {STRANGERS} of them: {loud_polls}"
    );
    assert!(found <= usual * 2.0 + 1.0, "{found} polls a second, {usual} are usual");
    load.check();
}

/// Asks with tokens that nobody of ours signed, each under the name of another key.
async fn strangers(stack: &Stack) -> BTreeMap<u16, usize> {
    let now = stack_time(stack).await;
    let issuer = ForeignIssuer::shared();
    let mut claims = issuer.claims(now);
    claims.insert("iss".to_owned(), json!(stack.issuer.issuer()));
    let claims = Value::Object(claims).to_string();
    let mut asking = tokio::task::JoinSet::new();
    for first in 0..STRANGERS_AT_ONCE {
        let (client, url, claims) = (Client::new(), format!("{}/x", stack.envoy.url()), claims.clone());
        asking.spawn(async move {
            let mut statuses = BTreeMap::new();
            for number in (first..STRANGERS).step_by(STRANGERS_AT_ONCE) {
                // As long as a thumbprint, which is what ours are named by.
                let kid = encode(
                    &aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &number.to_le_bytes()).as_ref()
                        [..32],
                );
                let header = json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": kid }).to_string();
                let token = issuer.token_with_header(&header, &claims, Algorithm::EdDsa);
                let status = client.get(&url).bearer(&token).send().await.unwrap().status;
                *statuses.entry(status).or_insert(0) += 1;
            }
            statuses
        });
    }
    let mut all = BTreeMap::new();
    while let Some(statuses) = asking.join_next().await {
        for (status, count) in statuses.unwrap() {
            *all.entry(status).or_insert(0) += count;
        }
    }
    all
}

/// The date by the issuer, as its tokens have it.
async fn stack_time(stack: &Stack) -> u64 {
    let token = stack.issuer.login("alice", PASSWORD).await.unwrap().access_token;
    part(&token, 1)["iat"].as_u64().unwrap()
}

async fn polls(stack: &Stack) -> u64 {
    stack.issuer.metric("tollgate_issuer_http_requests_total", "route=\"/v1/edge/feed\"").await.unwrap()
}

async fn a_withdrawn_key_is_refused_and_the_next_one_is_not(stack: &Stack, load: &Load) {
    let victim = stack.issuer.login("alice", PASSWORD).await.unwrap().access_token;
    let kid = key_of(&victim);
    // From here on its tokens are not good any more.
    load.give_up(&kid);
    let withdraw = format!("/v1/admin/signing-keys/{kid}/withdraw");
    let reason = json!({ "reason": "a test of emergencies" });
    stack.issuer.operator("POST", &withdraw).json(&reason).send_ok().await.unwrap();
    eventually("the withdrawn key's token to be refused", Duration::from_secs(5), async || {
        match stack.get("/x", &victim).await.unwrap().status {
            401 => Ok(()),
            status => Err(status),
        }
    })
    .await
    .unwrap();
    let next = eventually("a token of another key", Duration::from_secs(5), async || {
        let token = stack.issuer.login("alice", PASSWORD).await.unwrap().access_token;
        if key_of(&token) == kid { Err("the withdrawn key signs") } else { Ok(token) }
    })
    .await
    .unwrap();
    assert_eq!(stack.get("/x", &next).await.unwrap().status, 200);
    assert!(!published(stack).await.contains(&kid), "the withdrawn key is published");
    load.check();
}

/// Two minutes and the life of a token have to pass first: they pass in the database.
async fn keys_whose_tokens_are_over_are_published_no_more(stack: &Stack, postgres: &PostgresServer) {
    let retired = postgres.sql("tollgate", "SELECT kid FROM signing_keys WHERE state = 'retiring'").unwrap();
    let retired: BTreeSet<String> = retired.lines().map(str::to_owned).collect();
    assert!(retired.len() >= ROTATIONS, "{retired:?}");
    assert!(retired.is_subset(&published(stack).await), "a key goes while its tokens are good");
    postgres
        .sql("tollgate", "UPDATE signing_keys SET retiring_at = retiring_at - 180 WHERE state = 'retiring'")
        .unwrap();
    eventually("the old keys to go", Duration::from_secs(10), async || {
        let left: Vec<String> = published(stack).await.intersection(&retired).cloned().collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
    .unwrap();
    let token = stack.issuer.login("alice", PASSWORD).await.unwrap().access_token;
    assert_eq!(stack.get("/x", &token).await.unwrap().status, 200);
}

/// The names of the keys that anybody can fetch.
async fn published(stack: &Stack) -> BTreeSet<String> {
    published_at(&stack.client, &stack.issuer.base_url()).await.unwrap()
}

async fn published_at(client: &Client, url: &str) -> anyhow::Result<BTreeSet<String>> {
    let set = client.get(&format!("{url}/.well-known/jwks.json")).send_ok().await?.json()?;
    let keys = set["keys"].as_array().unwrap();
    Ok(keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect())
}

fn part(token: &str, place: usize) -> Value {
    let segment = token.split('.').nth(place).unwrap();
    serde_json::from_slice(&Base64UrlUnpadded::decode_vec(segment).unwrap()).unwrap()
}

fn key_of(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_owned()
}

/// A user who refreshes all the time, keeps every token, and shows each of them to the edge over and over.
struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    admitted: AtomicU64,
    tokens: Mutex<Vec<Held>>,
    /// The keys, in the order in which they were first seen to sign.
    keys: Mutex<Vec<String>>,
    given_up: Mutex<BTreeSet<String>>,
    faults: Mutex<Vec<String>>,
}

#[derive(Clone)]
struct Held {
    token: String,
    key: String,
    algorithm: String,
    had: Instant,
    /// Until just before it ends.
    good_for: Duration,
}

struct Seen {
    tokens: usize,
    keys: usize,
    admitted: u64,
    oldest: Duration,
    algorithms: BTreeSet<String>,
}

impl Load {
    async fn start(stack: &Stack) -> Self {
        let shared = Arc::new(Shared::default());
        let issuer = stack.issuer.base_url();
        let login = stack.issuer.login("alice", PASSWORD).await.unwrap();
        let mut tasks = vec![tokio::spawn(refresh(Arc::clone(&shared), issuer, login.refresh_token))];
        for _ in 0..2 {
            tasks.push(tokio::spawn(show(Arc::clone(&shared), format!("{}/x", stack.envoy.url()))));
        }
        Self { shared, tasks }
    }

    fn admitted(&self) -> u64 {
        self.shared.admitted.load(Ordering::SeqCst)
    }

    /// No good token was refused, and no key signed before it was published.
    fn check(&self) {
        let faults = self.shared.faults.lock().unwrap();
        assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), &faults[..faults.len().min(10)]);
    }

    /// Waits until this many keys have followed the first.
    async fn rotations(&self, count: usize) {
        let deadline = Duration::from_secs(ROTATE_SECONDS * 2 * count as u64) + SOON;
        eventually(&format!("{count} rotations"), deadline, async || {
            self.check();
            let keys = self.shared.keys.lock().unwrap().len();
            if keys > count { Ok(()) } else { Err(format!("{keys} keys")) }
        })
        .await
        .unwrap();
    }

    /// Tokens of this key are not good any more.
    fn give_up(&self, key: &str) {
        self.shared.given_up.lock().unwrap().insert(key.to_owned());
    }

    fn newest_is_of(&self, algorithm: Algorithm) -> Result<(), String> {
        let tokens = self.shared.tokens.lock().unwrap();
        let newest = tokens.last().map(|held| held.algorithm.clone()).unwrap_or_default();
        if newest == algorithm.name() { Ok(()) } else { Err(newest) }
    }

    async fn stop(self) -> Seen {
        self.shared.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let tokens = self.shared.tokens.lock().unwrap();
        Seen {
            tokens: tokens.len(),
            keys: self.shared.keys.lock().unwrap().len(),
            admitted: self.shared.admitted.load(Ordering::SeqCst),
            oldest: tokens.first().map(|held| held.had.elapsed()).unwrap_or_default(),
            algorithms: tokens.iter().map(|held| held.algorithm.clone()).collect(),
        }
    }
}

/// Refreshes one session, one answer after the other.
#[expect(clippy::disallowed_methods, reason = "a token is good from when it was had")]
async fn refresh(shared: Arc<Shared>, issuer: String, mut refresh_token: String) {
    let client = Client::fresh_connections();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    while !shared.stop.load(Ordering::SeqCst) {
        pace.tick().await;
        // What is published is looked at before there is a token: a key that signs has to be there.
        let Ok(published) = published_at(&client, &issuer).await else { continue };
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "first-party"),
            ("refresh_token", refresh_token.as_str()),
        ];
        // A restart takes the answer away; the same question again gets the same answer.
        let Ok(answer) = client.post(&format!("{issuer}/oauth2/token")).form(&form).send_ok().await else {
            continue;
        };
        let answer = answer.json().unwrap();
        refresh_token = answer["refresh_token"].as_str().unwrap().to_owned();
        let token = answer["access_token"].as_str().unwrap().to_owned();
        let (key, algorithm) = (key_of(&token), part(&token, 0)["alg"].as_str().unwrap().to_owned());
        let withdrawn = !shared.given_up.lock().unwrap().is_empty();
        let mut keys = shared.keys.lock().unwrap();
        if !keys.contains(&key) {
            // After a withdrawal the next one may sign between the two questions.
            if !published.contains(&key) && !withdrawn {
                shared.faults.lock().unwrap().push(format!("{key} signed before it was published"));
            }
            keys.push(key.clone());
        }
        drop(keys);
        let life = answer["expires_in"].as_u64().unwrap();
        let good_for = Duration::from_secs(life.saturating_sub(2));
        shared.tokens.lock().unwrap().push(Held { token, key, algorithm, had: Instant::now(), good_for });
    }
}

/// Shows tokens of all ages to the edge, the newest and then the oldest first, for as long as they are good.
async fn show(shared: Arc<Shared>, url: String) {
    let client = Client::fresh_connections();
    let mut turn = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        let held = {
            let tokens = shared.tokens.lock().unwrap();
            let place =
                if turn % 2 == 0 { tokens.len().wrapping_sub(1) } else { turn / 2 % tokens.len().max(1) };
            tokens.get(place).cloned()
        };
        turn += 1;
        let Some(held) = held.filter(|held| held.had.elapsed() < held.good_for) else {
            tokio::task::yield_now().await;
            continue;
        };
        let answer = client.get(&url).bearer(&held.token).send().await.unwrap();
        if answer.status == 200 {
            shared.admitted.fetch_add(1, Ordering::SeqCst);
        } else if !shared.given_up.lock().unwrap().contains(&held.key) {
            let age = held.had.elapsed();
            let fault =
                format!("a token of {} ({}) got {answer} at the age of {age:?}", held.key, held.algorithm);
            shared.faults.lock().unwrap().push(fault);
        }
    }
}
