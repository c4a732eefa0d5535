//! Refreshed and client-credentials tokens in a second, next to `oidc-provider` from npm: both rotate refresh tokens,
//! sign JWTs by EdDSA, check the client's secret, and have what they must keep on disk before they answer.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};
use serde::Deserialize;
use serde_json::json;
use tollgate_tests::eventually::eventually;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::foreign::node_program;
use tollgate_tests::issuer::{Issuer, IssuerOptions, Program};
use tollgate_tests::postgres_server::{PostgresOptions, PostgresServer};
use tollgate_tests::process::Process;
use tollgate_tests::redis_server::{RedisOptions, RedisServer};
use tollgate_tests::samples::median;
use tollgate_tests::workspace_root;

use crate::clock;
use crate::connection::{Connection, basic, post_form, post_json_as};
use crate::load::while_working;
use crate::people::{CLIENT, PASSWORD, People, move_in, no_limits};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const CONNECTIONS: usize = 16;
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// One service, and what its clients hold.
struct Contestant {
    name: &'static str,
    address: SocketAddr,
    path: &'static str,
    authorization: String,
    refresh_tokens: Vec<String>,
    refreshes: Vec<f64>,
    credentials: Vec<f64>,
}

impl Contestant {
    fn refresh_round(&mut self) -> Result<f64> {
        let Self { address, path, authorization, refresh_tokens, .. } = self;
        let mut workers = Vec::new();
        for token in refresh_tokens {
            let mut connection = Connection::open(*address)?;
            let (path, authorization) = (*path, authorization.as_str());
            workers.push(move || {
                let form = format!("grant_type=refresh_token&refresh_token={token}");
                let answer = connection.send(&post_form(path, authorization, &form))?.expect(200)?;
                *token = answer.text("refresh_token")?;
                Ok(())
            });
        }
        Ok(while_working(workers, pause)?.0)
    }

    fn credentials_round(&self) -> Result<f64> {
        let Self { address, path, authorization, .. } = self;
        let request = post_form(path, authorization, "grant_type=client_credentials&scope=read");
        let worker = |_| {
            let mut connection = Connection::open(*address)?;
            let request = request.clone();
            Ok(move || connection.send(&request)?.expect(200).map(drop))
        };
        let workers: Result<Vec<_>> = (0..CONNECTIONS).map(worker).collect();
        Ok(while_working(workers?, pause)?.0)
    }
}

fn pause() -> Result<()> {
    clock::sleep(ROUND);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
pub(crate) async fn run() -> Result<()> {
    let evidence = Evidence::named("bench-issuer-peer")?;
    let durable = RedisOptions::default().with("appendonly", "yes").with("appendfsync", "always");
    let redis = RedisServer::start(durable, &evidence).await?;
    let postgres = PostgresServer::start(PostgresOptions::default(), &evidence).await?;
    let url = postgres.create_database("tollgate")?;
    let (_peer, theirs, workers) = peer(&redis, &evidence).await?;
    let (_sqlite, on_sqlite) = ours("tollgate, SQLite", "sqlite", None, &evidence).await?;
    let (_on_postgres, on_postgres) = ours("tollgate, PostgreSQL", "postgres", Some(url), &evidence).await?;
    let mut contestants = [theirs, on_sqlite, on_postgres];
    let count = contestants.len();
    for number in 0..ROUNDS {
        // Each round begins with another one, so that none always follows the same.
        for place in 0..count {
            let contestant = contestants.get_mut((number + place) % count).context("contestants")?;
            let refreshes = contestant.refresh_round().context(contestant.name)?;
            contestant.refreshes.push(refreshes);
            let credentials = contestant.credentials_round().context(contestant.name)?;
            contestant.credentials.push(credentials);
        }
    }
    println!(
        "requests/s, {CONNECTIONS} connections, medians of {ROUNDS} interleaved rounds of {ROUND:?}; oidc-provider in \
         {workers} processes, on Redis with appendfsync always"
    );
    let [theirs, ours @ ..] = &contestants;
    let ratio = |ours: &[f64], theirs: &[f64]| {
        median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
    };
    println!(
        "{:22} refresh {:7.0}   client_credentials {:7.0}",
        theirs.name,
        median(&theirs.refreshes),
        median(&theirs.credentials)
    );
    for contestant in ours {
        let Contestant { name, refreshes, credentials, .. } = contestant;
        println!(
            "{name:22} refresh {:7.0} (ratio {:.2})   client_credentials {:7.0} (ratio {:.2})",
            median(refreshes),
            ratio(refreshes, &theirs.refreshes),
            median(credentials),
            ratio(credentials, &theirs.credentials)
        );
    }
    Ok(())
}

async fn ours(
    name: &'static str,
    file: &str,
    postgres: Option<String>,
    evidence: &Arc<Evidence>,
) -> Result<(Issuer, Contestant)> {
    let mut variables = no_limits();
    variables.extend(postgres.map(|url| ("TOLLGATE_DATABASE__URL".to_owned(), url)));
    let data = evidence.file(&format!("{file}-data"));
    let options = IssuerOptions {
        variables,
        data: Some(data.clone()),
        program: Program::At(std::env::current_exe()?),
        ..IssuerOptions::default()
    };
    let users: Vec<String> = (0..CONNECTIONS).map(|number| format!("user{number:03}")).collect();
    let people = People { users, disabled: Vec::new() };
    let secret = move_in(&people, &data, &options.issuer, &options.variables).await?;
    let issuer = Issuer::start_named(file, options, evidence).await?;
    let mut connection = Connection::open(issuer.addr())?;
    let authorization = basic(CLIENT, &secret);
    let log_in = |user: &String| {
        let body = json!({ "username": user, "password": PASSWORD, "client_id": CLIENT, "scope": "read" });
        connection.send(&post_json_as(&authorization, "/v1/login", &body))?.expect(200)?.text("refresh_token")
    };
    let refresh_tokens = people.users.iter().map(log_in).collect::<Result<_>>()?;
    let contestant = Contestant {
        name,
        address: issuer.addr(),
        path: "/oauth2/token",
        authorization,
        refresh_tokens,
        refreshes: Vec::new(),
        credentials: Vec::new(),
    };
    Ok((issuer, contestant))
}

/// What the peer says once it listens.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    port: u16,
    workers: usize,
    secret: String,
    refresh_tokens: Vec<String>,
}

async fn peer(redis: &RedisServer, evidence: &Arc<Evidence>) -> Result<(Process, Contestant, usize)> {
    let sources = workspace_root().join("tests/benches/issuer/oidc_provider");
    let install = move || node_program("oidc-provider", &sources, "server.mjs");
    let program = tokio::task::spawn_blocking(install).await??;
    let ready_file = evidence.file("peer-ready.json");
    let variables = [
        ("REDIS_URL", redis.url()),
        ("REFRESH_TOKENS", CONNECTIONS.to_string()),
        ("READY_FILE", ready_file.display().to_string()),
        ("NODE_ENV", "production".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let process = Process::spawn("peer", Path::new("node"), [program], &variables, evidence.folder())?;
    // The inner result ends the wait at once when the process has ended.
    let ready = eventually("oidc-provider to be ready", READY_DEADLINE, async || {
        if let Err(ended) = process.ensure_running() {
            return Ok(Err(ended));
        }
        let text = std::fs::read_to_string(&ready_file).context("its ready file")?;
        let ready: Ready = serde_json::from_str(&text)?;
        Ok::<_, Error>(Ok(ready))
    })
    .await
    .inspect_err(|_| evidence.keep())??;
    let Ready { port, workers, secret, refresh_tokens } = ready;
    let contestant = Contestant {
        name: "oidc-provider",
        address: ([127, 0, 0, 1], port).into(),
        path: "/token",
        authorization: basic(CLIENT, &secret),
        refresh_tokens,
        refreshes: Vec::new(),
        credentials: Vec::new(),
    };
    Ok((process, contestant, workers))
}
