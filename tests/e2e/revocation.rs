//! A revocation that was acknowledged is refused at every worker within a second, and by every VM that comes after.

use std::time::{Duration, Instant};

use serde_json::json;
use tollgate_tests::client::Client;
use tollgate_tests::eventually::eventually;
use tollgate_tests::module::Variant;
use tollgate_tests::stack::{Stack, StackOptions};

const TRIES: usize = 100;
pub(crate) const WORKERS: u32 = 2;
/// Connections that the rounds use; the listener deals them to the workers in turn.
const CONNECTIONS: usize = 4;

/// Two workers, connections dealt to them in turn, and no quota.
pub(crate) fn options(variant: Variant) -> StackOptions {
    let options = StackOptions { concurrency: WORKERS, variant, ..StackOptions::default() };
    options
        .edit_plugin(|plugin| {
            plugin["rules"] = json!([
                { "match": { "prefix": "/public/" }, "requires": "none" },
                { "match": { "prefix": "/" }, "requires": { "scopes": ["read"] } },
            ]);
        })
        .edit_bootstrap(|bootstrap| {
            bootstrap["static_resources"]["listeners"][0]["connection_balance_config"] =
                json!({ "exact_balance": {} });
        })
}

/// Clients whose kept connections are spread over all workers.
pub(crate) async fn clients_on_every_worker(stack: &Stack) -> Vec<Client> {
    let clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::one_connection()).collect();
    for client in &clients {
        client.get(&format!("{}/public/", stack.envoy.url())).send().await.unwrap();
    }
    let stats = stack.envoy.stats("listener.").await.unwrap();
    for worker in 0..WORKERS {
        let name = format!(".worker_{worker}.downstream_cx_active");
        let active: u64 =
            stats.iter().filter(|(stat, _)| stat.ends_with(&name)).map(|(_, active)| active).sum();
        assert!(active > 0, "no connection reached worker {worker}: {stats:?}");
    }
    clients
}

pub(crate) async fn status(client: &Client, stack: &Stack, token: &str) -> u16 {
    client.get(&format!("{}/x", stack.envoy.url())).bearer(token).send().await.unwrap().status
}

pub(crate) async fn fresh_token(stack: &Stack) -> String {
    stack.issuer.login("alice", "correct horse battery").await.unwrap().access_token
}

pub(crate) async fn add_alice(stack: &Stack) {
    stack.issuer.add_user("alice", "correct horse battery", "free", &[], &["read"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "the time until a refusal is what is measured")]
async fn an_acknowledged_revocation_is_refused_at_every_worker_within_a_second() {
    let mut stack = Stack::start(options(Variant::Shipped)).await.unwrap();
    add_alice(&stack).await;
    let clients = clients_on_every_worker(&stack).await;
    let (mut revoked, mut took) = (Vec::new(), Vec::new());
    for attempt in 0..TRIES {
        let token = fresh_token(&stack).await;
        for client in &clients {
            assert_eq!(status(client, &stack, &token).await, 200, "attempt {attempt}: before the revocation");
        }
        stack.issuer.revoke_token(&token).await.unwrap();
        let acknowledged = Instant::now();
        for client in &clients {
            while status(client, &stack, &token).await != 401 {
                assert!(
                    acknowledged.elapsed() < Duration::from_secs(1),
                    "attempt {attempt}: admitted after a second"
                );
            }
        }
        took.push(acknowledged.elapsed());
        revoked.push(token);
    }
    took.sort();
    println!(
        "revoke -> refused at {WORKERS} workers: median {:?}, maximum {:?} of {TRIES}",
        took[TRIES / 2],
        took[TRIES - 1]
    );

    // An issuer that was killed still knows what it acknowledged, and a new Envoy has its state from there.
    stack.issuer.kill();
    stack.issuer.restart().await.unwrap();
    // A new Envoy starts without state. It may answer 503 until it has some, but never admits what is revoked.
    stack.envoy.kill();
    stack.envoy.restart().await.unwrap();
    let client = Client::fresh_connections();
    eventually(
        "every worker of the new Envoy to refuse what is revoked",
        Duration::from_secs(30),
        async || {
            for token in &revoked {
                match status(&client, &stack, token).await {
                    401 => {}
                    503 => return Err("not ready".to_owned()),
                    other => panic!("a revoked token got {other} from a new Envoy"),
                }
            }
            Ok(())
        },
    )
    .await
    .unwrap();
    let good = fresh_token(&stack).await;
    assert_eq!(status(&client, &stack, &good).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_replaces_a_trapped_one_never_admits_what_is_revoked() {
    let stack = Stack::start(options(Variant::Probe)).await.unwrap();
    add_alice(&stack).await;
    let (revoked, good) = (fresh_token(&stack).await, fresh_token(&stack).await);
    stack.issuer.revoke_token(&revoked).await.unwrap();
    let clients = clients_on_every_worker(&stack).await;
    for client in &clients {
        eventually("the revocation", Duration::from_secs(5), async || {
            match status(client, &stack, &revoked).await {
                401 => Ok(()),
                other => Err(other),
            }
        })
        .await
        .unwrap();
    }
    let reloads = "wasm.tollgate.vm_reload_success";
    let before = stack.envoy.stat(reloads).await.unwrap();
    for client in &clients {
        // The answer to the request that traps is Envoy's, or none.
        let trap =
            client.get(&format!("{}/x", stack.envoy.url())).header("x-tollgate-probe", "trap").send().await;
        assert!(trap.is_err() || trap.unwrap().status >= 500);
    }
    let anyone = Client::fresh_connections();
    for token in [&revoked, &good] {
        let wanted = if token == &revoked { 401 } else { 200 };
        // Every worker has its own VM: ask often enough that each was asked.
        let mut in_a_row = 0;
        eventually("the new VMs to decide", Duration::from_secs(30), async || {
            let status = status(&anyone, &stack, token).await;
            assert!(status == wanted || status >= 500, "{status} from a VM that replaces a trapped one");
            in_a_row = if status == wanted { in_a_row + 1 } else { 0 };
            if in_a_row >= 16 { Ok(()) } else { Err(format!("{status}, {in_a_row} in a row")) }
        })
        .await
        .unwrap();
    }
    assert!(stack.envoy.stat(reloads).await.unwrap() > before, "no VM was replaced, so nothing was shown");
}
