//! Whether the four refused logins can be told apart, by how long they take or by what is answered.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions, Program};
use tollgate_tests::samples::{Separation, median};

use crate::clock;
use crate::connection::{Answer, Connection, post_json};
use crate::people::{PASSWORD, People, move_in, no_limits};

const SAMPLES: usize = 1_000;
/// So many failures lock an account: as many as there may be.
const FAILURES_MAX: usize = 100;
/// An account is left before it is locked.
const TRIES_OF_ACCOUNT: usize = 90;
const ACCOUNTS: usize = SAMPLES.div_ceil(TRIES_OF_ACCOUNT);
/// Of names as long as each other's. The first is nobody's.
const KINDS: [&str; 4] = ["unknown", "wrongpw", "locked_", "disable"];
const LOCKED: usize = 2;
/// Over all pairs together.
const ALPHA: f64 = 0.01;

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
pub(crate) async fn run() -> Result<()> {
    for (name, memory_kib, iterations) in [("cheap", 4096, 1), ("default", 19_456, 2)] {
        let evidence = Evidence::named(&format!("bench-issuer-refusals-{name}"))?;
        let issuer = start(&evidence, memory_kib, iterations).await?;
        let samples = measure(&issuer)?;
        println!(
            "{name} parameters ({memory_kib} KiB, t={iterations}), {SAMPLES} refused logins of each kind; the answers are \
             equal, byte for byte, but for `date` and `endpoint-load-metrics`"
        );
        report(&samples);
    }
    Ok(())
}

async fn start(evidence: &std::sync::Arc<Evidence>, memory_kib: u32, iterations: u32) -> Result<Issuer> {
    let mut variables = no_limits();
    for (name, value) in [
        ("THROTTLE__ACCOUNT_FAILURES", FAILURES_MAX.to_string()),
        ("THROTTLE__ACCOUNT_FAILURES_MAX", FAILURES_MAX.to_string()),
        ("THROTTLE__LOCK_SECONDS", "604800".to_owned()),
        ("PASSWORD__MEMORY_KIB", memory_kib.to_string()),
        ("PASSWORD__ITERATIONS", iterations.to_string()),
    ] {
        variables.push((format!("TOLLGATE_{name}"), value));
    }
    let data = evidence.file("issuer-data");
    let options = IssuerOptions {
        variables,
        data: Some(data.clone()),
        program: Program::At(std::env::current_exe()?),
        ..IssuerOptions::default()
    };
    let named = |kind: &str| (0..ACCOUNTS).map(|number| account(kind, number)).collect::<Vec<_>>();
    let [_, wrong, locked, disabled] = KINDS.map(named);
    let people = People { users: [wrong, locked, disabled.clone()].concat(), disabled };
    move_in(&people, &data, &options.issuer, &options.variables).await?;
    Issuer::start(options, evidence).await
}

fn account(kind: &str, number: usize) -> String {
    format!("{kind}{number:03}")
}

fn login(kind: &str, number: usize) -> Vec<u8> {
    // Where anything but the password is in the way, it is the right one.
    let password = if kind == "wrongpw" { "plum orbit satchel ninf" } else { PASSWORD };
    post_json("/v1/login", &json!({ "username": account(kind, number), "password": password }))
}

/// How long each login of each kind took, in milliseconds: one connection, one after another, in changing order.
fn measure(issuer: &Issuer) -> Result<[Vec<f64>; 4]> {
    let mut connection = Connection::open(issuer.addr())?;
    for number in 0..LOCKED {
        let body = json!({ "username": account("locked_", number), "password": "plum orbit satchel ninf" });
        let wrong = post_json("/v1/login", &body);
        for _ in 0..FAILURES_MAX {
            connection.send(&wrong)?.expect(401)?;
        }
    }
    let mut expected = None;
    let mut samples = KINDS.map(|_| Vec::with_capacity(SAMPLES));
    for round in 0..SAMPLES {
        for place in order(round) {
            let kind = KINDS.get(place).context("a kind")?;
            let accounts = if *kind == "locked_" { LOCKED } else { ACCOUNTS };
            let login = login(kind, (round / TRIES_OF_ACCOUNT) % accounts);
            let asked = clock::now();
            let answer = connection.send(&login)?;
            let took = clock::millis(asked.elapsed());
            let bytes = bytes(&answer.expect(401)?);
            let expected = expected.get_or_insert_with(|| bytes.clone());
            ensure!(*expected == bytes, "{kind} is answered otherwise:\n{bytes}\nand not\n{expected}");
            samples.get_mut(place).context("a kind")?.push(took);
        }
    }
    Ok(samples)
}

/// An order of the four kinds; all there are take turns.
fn order(round: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..KINDS.len()).collect();
    let mut number = round * 7;
    let mut order = Vec::new();
    while !left.is_empty() {
        order.push(left.remove(number % left.len()));
        number /= left.len() + 1;
    }
    order
}

/// The whole answer, with the two headers whose values are of the moment left empty.
fn bytes(answer: &Answer) -> String {
    let line = |line: &str| match line.split_once(':') {
        Some((name @ ("date" | "endpoint-load-metrics"), _)) => format!("{name}:\r\n"),
        Some(_) | None => format!("{line}\r\n"),
    };
    let head: String = answer.head.lines().map(line).collect();
    head + &String::from_utf8_lossy(&answer.body)
}

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
fn report(samples: &[Vec<f64>; 4]) {
    for (kind, times) in KINDS.iter().zip(samples) {
        println!("  {kind}: median {:.3} ms", median(times));
    }
    let named: Vec<_> = KINDS.iter().zip(samples).collect();
    let pairs: Vec<_> = named
        .iter()
        .enumerate()
        .flat_map(|(place, left)| named.iter().skip(place + 1).map(move |right| (left, right)))
        .collect();
    let alpha = ALPHA / pairs.len() as f64;
    for ((left, lefts), (right, rights)) in &pairs {
        let Separation { distance, p_value } = Separation::of(lefts, rights);
        let verdict = if p_value < alpha { "SEPARATED" } else { "not separated" };
        println!("  {left} / {right}: D {distance:.4} p {p_value:.4} {verdict} (alpha {alpha:.5})");
    }
    // The test can tell: the same samples, shifted.
    let [unknown, wrong, ..] = samples;
    let shifted =
        |millis: f64| Separation::of(unknown, &wrong.iter().map(|time| time + millis).collect::<Vec<_>>());
    let Separation { distance, p_value } = shifted(1.0);
    let found = (0..=200).map(|step| f64::from(step) * 0.01).find(|millis| shifted(*millis).p_value < alpha);
    println!(
        "  control: wrongpw shifted by 1 ms: D {distance:.4} p {p_value:.2e}; a shift is found from {} on",
        found.map_or_else(|| "more than 2 ms".to_owned(), |millis| format!("{millis:.2} ms"))
    );
}
