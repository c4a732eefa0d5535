//! Walks through what Tollgate does on real processes: refused, admitted, out of quota, revoked.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tollgate_tests::client::{Client, Response};
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, Login};
use tollgate_tests::module::{self, Variant};
use tollgate_tests::stack::{Stack, StackOptions};
use tollgate_tests::{issuer, tools};

/// What the plan `free` admits per window.
const FREE_QUOTA: u64 = 100;
/// How many refusals in a row show that nothing is left on any worker.
const REFUSALS_IN_A_ROW: u64 = 20;
const REVOKED_DEADLINE: Duration = Duration::from_secs(10);

/// What the command line asks for.
#[derive(Debug, Default)]
struct Arguments {
    once: bool,
    ready_file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match arguments() {
        Ok(arguments) => demo(&arguments).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\nNot as expected: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments> {
    let mut parsed = Arguments::default();
    let mut given = std::env::args_os().skip(1);
    while let Some(argument) = given.next() {
        match argument.to_str() {
            Some("--once") => parsed.once = true,
            Some("--ready-file") => {
                parsed.ready_file = Some(given.next().context("--ready-file needs a path")?.into());
            }
            _ => bail!("unknown argument {argument:?}; usage: cargo demo [--once] [--ready-file PATH]"),
        }
    }
    Ok(parsed)
}

async fn demo(arguments: &Arguments) -> Result<()> {
    say("Building and starting (the first time takes minutes)");
    prepare().await?;
    let evidence = Evidence::named("demo")?;
    let mut clock = Clock::start();
    let stack = Stack::start_with(StackOptions::default(), evidence).await?;
    clock.step("started the issuer, an upstream, and Envoy with the filter");
    let walked = walk(&stack, &mut clock).await;
    walked.inspect_err(|_| stack.evidence.keep())?;

    let visitor = Visitor::add(&stack.issuer).await?;
    if let Some(path) = &arguments.ready_file {
        write_ready_file(path, &stack, &visitor)?;
    }
    if arguments.once {
        return Ok(());
    }
    say(&invitation(&stack, &visitor));
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Builds and installs what is needed, one line for each.
async fn prepare() -> Result<()> {
    let mut clock = Clock::start();
    tokio::task::spawn_blocking(issuer::binary).await??;
    clock.step("built the issuer");
    tokio::task::spawn_blocking(|| module::build(Variant::Shipped)).await??;
    clock.step("built the filter's module");
    tokio::task::spawn_blocking(tools::envoy).await??;
    clock.step(&format!("have Envoy {}", tools::ENVOY_VERSION));
    say("Walking through");
    Ok(())
}

async fn walk(stack: &Stack, clock: &mut Clock) -> Result<()> {
    let url = format!("{}/hello", stack.envoy.url());
    let password = random_password()?;
    stack.issuer.add_user("demo", &password, "free", &[], &["read"]).await?;
    clock.again();

    let refused = stack.client.get(&url).send().await?;
    expect("a request without a token", &refused, 401)?;
    let challenge = refused.header("www-authenticate").context("expected WWW-Authenticate; it is absent")?;
    clock.step(&format!("1  no token: 401, WWW-Authenticate: {challenge}"));

    let login = stack.issuer.login("demo", &password).await?;
    clock.step(&format!("2  login at the issuer: a token for the subject {}", login.user_id));

    admitted_as_itself(stack, &url, &login).await?;
    clock.step(&format!("3  admitted: 200, and the forged x-tollgate-subject became {}", login.user_id));

    let spent = spend_quota(&url, &login).await?;
    clock.step(&format!("4  quota: exactly {FREE_QUOTA} were admitted, then {spent}"));

    let revoked = revoke(stack, &url).await?;
    clock.step(&format!("5  revoked: refused {revoked:.1} ms after the issuer acknowledged it"));
    Ok(())
}

async fn admitted_as_itself(stack: &Stack, url: &str, login: &Login) -> Result<()> {
    let forged = stack.client.get(url).bearer(&login.access_token).header("x-tollgate-subject", "admin");
    let admitted = forged.send().await?;
    expect("a request with a token", &admitted, 200)?;
    let seen = admitted.json()?;
    let headers =
        seen.get("headers").and_then(|headers| headers.as_array()).context("the upstream's answer")?;
    let named: Vec<_> =
        headers.iter().filter(|pair| pair.get(0) == Some(&json!("x-tollgate-subject"))).collect();
    let expected = json!(["x-tollgate-subject", login.user_id]);
    ensure!(named == [&expected], "expected the upstream to see only {expected}; it saw {named:?}");
    Ok(())
}

/// Asks until nothing is left anywhere; the request that was admitted before counts.
async fn spend_quota(url: &str, login: &Login) -> Result<String> {
    // New connections meet every worker, so that the count is that of the whole edge.
    let client = Client::fresh_connections();
    let (mut admitted, mut refusals) = (1, 0);
    let mut last = None;
    while refusals < REFUSALS_IN_A_ROW {
        ensure!(admitted <= FREE_QUOTA, "expected {FREE_QUOTA} requests to be admitted; more were");
        let answer = client.get(url).bearer(&login.access_token).send().await?;
        if answer.status == 200 {
            admitted += 1;
            refusals = 0;
        } else {
            expect(&format!("request {}", admitted + 1), &answer, 429)?;
            refusals += 1;
            last = Some(answer);
        }
    }
    ensure!(admitted == FREE_QUOTA, "expected {FREE_QUOTA} requests to be admitted; {admitted} were");
    let last = last.context("expected a refusal; there was none")?;
    let shown = ["ratelimit", "ratelimit-policy", "retry-after"].map(|name| {
        let value = last.header(name).with_context(|| format!("expected {name} on a 429; it is absent"))?;
        Ok(format!("{name}: {value}"))
    });
    let shown: Vec<String> = shown.into_iter().collect::<Result<_>>()?;
    Ok(format!("429 with {}", shown.join(", ")))
}

/// Revokes a user who was just admitted; answers the milliseconds from the acknowledgement to the first refusal.
async fn revoke(stack: &Stack, url: &str) -> Result<f64> {
    let password = random_password()?;
    stack.issuer.add_user("leaver", &password, "free", &[], &["read"]).await?;
    let login = stack.issuer.login("leaver", &password).await?;
    let before = stack.client.get(url).bearer(&login.access_token).send().await?;
    expect("a request before the revocation", &before, 200)?;
    stack.issuer.revoke_subject(&login.user_id).await?;
    let acknowledged = Instant::now();
    eventually("a 401 for the revoked token", REVOKED_DEADLINE, async || {
        let answer = stack.client.get(url).bearer(&login.access_token).send().await?;
        expect("a request after the revocation", &answer, 401)
    })
    .await?;
    Ok(acknowledged.elapsed().as_secs_f64() * 1000.0)
}

fn expect(what: &str, answer: &Response, status: u16) -> Result<()> {
    ensure!(answer.status == status, "{what}: expected status {status}; came {answer}");
    Ok(())
}

/// A user who has spent nothing, for whoever tries the commands.
#[derive(Debug)]
struct Visitor {
    password: String,
}

impl Visitor {
    const NAME: &str = "visitor";

    async fn add(issuer: &Issuer) -> Result<Self> {
        let password = random_password()?;
        issuer.add_user(Self::NAME, &password, "free", &[], &["read"]).await?;
        Ok(Self { password })
    }
}

fn write_ready_file(path: &std::path::Path, stack: &Stack, visitor: &Visitor) -> Result<()> {
    let ready = json!({
        "edge": stack.envoy.url(),
        "issuer": stack.issuer.base_url(),
        "upstream": stack.upstream.url(),
        "operator_token": stack.issuer.operator_token(),
        "username": Visitor::NAME,
        "password": visitor.password,
    });
    // Whoever waits for the file must never read half of it.
    let unfinished = path.with_extension("tmp");
    std::fs::write(&unfinished, format!("{ready:#}\n"))
        .with_context(|| format!("writing {}", unfinished.display()))?;
    std::fs::rename(&unfinished, path).with_context(|| format!("renaming to {}", path.display()))
}

fn invitation(stack: &Stack, visitor: &Visitor) -> String {
    let (edge, issuer) = (stack.envoy.url(), stack.issuer.base_url());
    let (name, password, operator) = (Visitor::NAME, &visitor.password, stack.issuer.operator_token());
    format!(
        r#"
Everything keeps running until Ctrl-C. To try:

  curl -i {edge}/hello
  curl -i {edge}/public/hello
  TOKEN=$(curl -s {issuer}/v1/login -H 'content-type: application/json' \
    -d '{{"username":"{name}","password":"{password}"}}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -i {edge}/hello -H "authorization: Bearer $TOKEN"
  curl -i {issuer}/oauth2/revoke -H 'authorization: Bearer {operator}' -d "token=$TOKEN"
  curl -i {edge}/hello -H "authorization: Bearer $TOKEN"
"#
    )
}

fn random_password() -> Result<String> {
    let halves = [getrandom::u64()?, getrandom::u64()?];
    Ok(halves.map(|half| format!("{half:016x}")).concat())
}

/// Tells how long each step took.
#[derive(Debug)]
struct Clock {
    since: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { since: Instant::now() }
    }

    /// Leaves out what happened since the last step.
    fn again(&mut self) {
        self.since = Instant::now();
    }

    fn step(&mut self, what: &str) {
        say(&format!("  {:>9.1} ms  {what}", self.since.elapsed().as_secs_f64() * 1000.0));
        self.again();
    }
}

#[expect(clippy::print_stdout, reason = "printing what happens is what this program is for")]
fn say(line: &str) {
    println!("{line}");
}
