//! How many logins there are in a second, next to a bare loop of the same hashing on as many threads; and how soon other
//! things are answered meanwhile.

use std::net::SocketAddr;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use serde_json::json;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions, Program};
use tollgate_tests::samples::{median, percentile};

use crate::clock;
use crate::connection::{Connection, basic, post_form, post_json, post_json_as, request};
use crate::load::while_working;
use crate::people::{CLIENT, PASSWORD, People, move_in, no_limits};

const ROUNDS: usize = 6;
const ROUND: Duration = Duration::from_secs(5);
/// Connections for each core: enough that a worker always finds a login that waits.
const CONNECTIONS_PER_CORE: usize = 16;
const USERS: usize = 200;
const PROBE_ROUNDS: usize = 3;
const PROBE_ROUND: Duration = Duration::from_secs(6);
/// 50 requests a second.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// What the issuer's own threads for hashing have, so that other work on the machine takes as much from the one as from
/// the other.
const PRIORITY: i32 = 10;

/// What logins cost in CPU time, in milliseconds each.
struct Cost {
    hashing: f64,
    rest: f64,
    clients: f64,
}

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
pub(crate) async fn run() -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let evidence = Evidence::named("bench-issuer-logins")?;
    let mut variables = no_limits();
    variables.push(("TOLLGATE_PASSWORD__WORKERS".to_owned(), cores.to_string()));
    let data = evidence.file("issuer-data");
    let options = IssuerOptions {
        variables,
        data: Some(data.clone()),
        program: Program::At(std::env::current_exe()?),
        ..IssuerOptions::default()
    };
    let users = (0..USERS).map(|number| format!("user{number:03}")).collect();
    let people = People { users, disabled: Vec::new() };
    let secret = move_in(&people, &data, &options.issuer, &options.variables).await?;
    let issuer = Issuer::start(options, &evidence).await?;
    let edge = issuer.add_edge("bench").await?;

    let (mut logins, mut hashes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut costs, mut hash_costs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (bare, cost_of_hash) = bare_loop(cores)?;
        hash_costs.push(cost_of_hash);
        let (rate, cost) = while_working(clients(&issuer, cores)?, || cost_of(&issuer, ROUND))?;
        hashes.push(bare);
        logins.push(rate);
        ratios.push(rate / bare);
        costs.push(Cost {
            hashing: cost.hashing / rate,
            rest: cost.rest / rate,
            clients: cost.clients / rate,
        });
    }
    let cost = |of: fn(&Cost) -> f64| median(&costs.iter().map(of).collect::<Vec<_>>());
    println!(
        "{cores} cores, Argon2id 19456 KiB t=2 p=1, medians of {ROUNDS} interleaved rounds of {ROUND:?}: \
         {:.1} logins/s, {:.1} hashes/s in a bare loop, ratio {:.3} (rounds: {:.3?})",
        median(&logins),
        median(&hashes),
        median(&ratios),
        ratios
    );
    let [hashing, rest, clients] =
        [cost(|cost| cost.hashing), cost(|cost| cost.rest), cost(|cost| cost.clients)];
    let hash = median(&hash_costs);
    println!(
        "CPU of one login: hashing threads {hashing:.2} ms, rest of the issuer {rest:.2} ms, the clients {clients:.2} ms; \
         of one hash in the bare loop {hash:.2} ms. By CPU time alone the ratio is {:.3}, without the clients' {:.3}",
        hash / (hashing + rest + clients),
        hash / (hashing + rest),
    );
    latencies(&issuer, cores, &secret, &edge)
}

/// CPU time in milliseconds for each second of a while.
fn cost_of(issuer: &Issuer, span: Duration) -> Result<Cost> {
    let process = issuer.process().id().to_string();
    let used = || -> Result<[f64; 3]> {
        Ok([
            clock::cpu_seconds(&process, "password-")?,
            clock::cpu_seconds(&process, "")?,
            clock::cpu_seconds("self", "")?,
        ])
    };
    let begun = clock::now();
    let [hashing, all, clients] = used()?;
    clock::sleep(span);
    let [hashing_after, all_after, clients_after] = used()?;
    let took = begun.elapsed().as_secs_f64() / 1000.0;
    let hashing = hashing_after - hashing;
    Ok(Cost {
        hashing: hashing / took,
        rest: (all_after - all - hashing) / took,
        clients: (clients_after - clients) / took,
    })
}

fn clients(issuer: &Issuer, cores: usize) -> Result<Vec<impl FnMut() -> Result<()> + Send + use<>>> {
    let count = cores * CONNECTIONS_PER_CORE;
    let client = |number: usize| {
        let mut connection = Connection::open(issuer.addr())?;
        let mut user = number;
        Ok(move || {
            let username = format!("user{:03}", user % USERS);
            user += count;
            let login = post_json("/v1/login", &json!({ "username": username, "password": PASSWORD }));
            connection.send(&login)?.expect(200)?;
            Ok(())
        })
    };
    (0..count).map(client).collect()
}

/// Hashes in a second on as many threads as there are cores, and the CPU time of one in milliseconds: the same crate, the
/// same parameters, memory that is kept.
fn bare_loop(cores: usize) -> Result<(f64, f64)> {
    let impossible = |error: argon2::Error| anyhow!("{error}");
    let params = Params::new(19_456, 2, 1, Some(32)).map_err(impossible)?;
    let worker = |_| {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let mut blocks = vec![Block::new(); params.block_count()];
        let (mut tag, mut polite) = ([0; 32], false);
        move || {
            if !std::mem::replace(&mut polite, true) {
                rustix::process::setpriority_process(None, PRIORITY)?;
            }
            let password = PASSWORD.as_bytes();
            argon2
                .hash_password_into_with_memory(password, &[7; 16], &mut tag, &mut blocks)
                .map_err(impossible)
        }
    };
    let used = || {
        let (begun, before) = (clock::now(), clock::cpu_seconds("self", "")?);
        clock::sleep(ROUND);
        Ok((clock::cpu_seconds("self", "")? - before) * 1000.0 / begun.elapsed().as_secs_f64())
    };
    let (rate, used) = while_working((0..cores).map(worker).collect(), used)?;
    Ok((rate, used / rate))
}

/// Asks once, and checks the answer.
type Ask = Box<dyn FnMut(&mut Connection) -> Result<()> + Send>;

/// One kind of request that is not a login.
struct Probe {
    name: &'static str,
    address: SocketAddr,
    ask: Ask,
    quiet: Vec<f64>,
    loaded: Vec<f64>,
}

fn probes(issuer: &Issuer, secret: &str, edge: &str) -> Result<Vec<Probe>> {
    let address = issuer.addr();
    let probe = |name, ask| Probe { name, address, ask, quiet: Vec::new(), loaded: Vec::new() };
    let always = |request: Vec<u8>| -> Ask {
        Box::new(move |connection| connection.send(&request)?.expect(200).map(drop))
    };
    let body = json!({ "username": "user000", "password": PASSWORD, "client_id": CLIENT });
    let authorization = basic(CLIENT, secret);
    let login = post_json_as(&authorization, "/v1/login", &body);
    let mut token = Connection::open(address)?.send(&login)?.expect(200)?.text("refresh_token")?;
    let refresh = move |connection: &mut Connection| {
        let form = format!("grant_type=refresh_token&refresh_token={token}");
        let answer = connection.send(&post_form("/oauth2/token", &authorization, &form))?.expect(200)?;
        token = answer.text("refresh_token")?;
        Ok(())
    };
    let bearer = format!("Bearer {edge}");
    Ok(vec![
        probe("refresh", Box::new(refresh)),
        probe("JWKS", always(request("GET", "/.well-known/jwks.json", &[], ""))),
        probe("feed", always(request("GET", "/v1/edge/feed", &[("authorization", &bearer)], ""))),
        probe("/livez", always(request("GET", "/livez", &[], ""))),
    ])
}

/// Asks at a steady rate for a while, on one connection, and gives back how long each answer took, in milliseconds.
fn asked(probe: &mut Probe) -> Result<Vec<f64>> {
    let mut connection = Connection::open(probe.address)?;
    let (begun, mut answers) = (clock::now(), Vec::new());
    while begun.elapsed() < PROBE_ROUND {
        clock::sleep(PROBE_PAUSE);
        let asked = clock::now();
        (probe.ask)(&mut connection)?;
        answers.push(clock::millis(asked.elapsed()));
    }
    Ok(answers)
}

fn all_asked(probes: &mut [Probe]) -> Result<Vec<Vec<f64>>> {
    thread::scope(|scope| {
        let threads: Vec<_> = probes.iter_mut().map(|probe| scope.spawn(|| asked(probe))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Vec<f64>>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a probe panicked")))
        };
        threads.into_iter().map(join).collect()
    })
}

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
fn latencies(issuer: &Issuer, cores: usize, secret: &str, edge: &str) -> Result<()> {
    let mut probes = probes(issuer, secret, edge)?;
    let mut logins = Vec::new();
    for _ in 0..PROBE_ROUNDS {
        let quiet = all_asked(&mut probes)?;
        let (rate, loaded) = while_working(clients(issuer, cores)?, || all_asked(&mut probes))?;
        logins.push(rate);
        for (probe, (quiet, loaded)) in probes.iter_mut().zip(quiet.into_iter().zip(loaded)) {
            probe.quiet.extend(quiet);
            probe.loaded.extend(loaded);
        }
    }
    println!("answers in ms, each asked 50 times a second, while there are {:.1} logins/s:", median(&logins));
    for Probe { name, quiet, loaded, .. } in &probes {
        let figures = |answers: &[f64]| {
            let [middle, tail] = [50, 99].map(|percent| percentile(answers, percent));
            format!("p50 {middle:6.2} p99 {tail:6.2} of {}", answers.len())
        };
        println!("{name:8} without logins {}   with logins {}", figures(quiet), figures(loaded));
    }
    Ok(())
}
