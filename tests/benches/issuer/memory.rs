//! Five hundred logins at once, in an issuer that the kernel gives no more than 512 MB.

use std::thread;

use anyhow::{Result, anyhow, ensure};
use serde_json::json;
use tollgate_tests::evidence::Evidence;
use tollgate_tests::issuer::{Issuer, IssuerOptions, Program};

use crate::clock;
use crate::connection::{Connection, post_json};
use crate::people::{PASSWORD, People, move_in, no_limits};

const LOGINS: usize = 500;
const MEMORY_MAX: u64 = 512 * 1024 * 1024;

#[expect(clippy::print_stdout, reason = "a benchmark is what it prints")]
pub(crate) async fn run() -> Result<()> {
    let evidence = Evidence::named("bench-issuer-memory")?;
    println!("{LOGINS} logins at once, RLIMIT_DATA {} MiB (enforced: more is refused)", MEMORY_MAX >> 20);
    for (name, queue) in [("queue of the default length", None), ("queue with room for all", Some(LOGINS))] {
        let mut variables = no_limits();
        if let Some(queue) = queue {
            variables.push(("TOLLGATE_PASSWORD__QUEUE_MAX".to_owned(), queue.to_string()));
        }
        let file = format!("issuer-{}", queue.unwrap_or_default());
        let data = evidence.file(&format!("{file}-data"));
        let users: Vec<String> = (0..LOGINS).map(|number| format!("user{number:03}")).collect();
        let options = IssuerOptions {
            variables,
            data: Some(data.clone()),
            program: Program::At(std::env::current_exe()?),
            memory_max: Some(MEMORY_MAX),
            ..IssuerOptions::default()
        };
        let people = People { users: users.clone(), disabled: Vec::new() };
        move_in(&people, &data, &options.issuer, &options.variables).await?;
        let issuer = Issuer::start_named(&file, options, &evidence).await?;
        let begun = clock::now();
        let statuses = at_once(&issuer, &users)?;
        let took = begun.elapsed().as_secs_f64();
        let admitted = statuses.iter().filter(|status| **status == 200).count();
        issuer.process().ensure_running()?;
        let peak = clock::status_kib(issuer.process().id(), "VmHWM")?;
        println!(
            "{name}: {admitted} admitted, {} told to come back (503, Retry-After), in {took:.1} s; VmHWM {} MiB",
            statuses.len() - admitted,
            peak / 1024
        );
    }
    Ok(())
}

fn at_once(issuer: &Issuer, users: &[String]) -> Result<Vec<u16>> {
    let address = issuer.addr();
    let login = |user: &str, mut connection: Connection| {
        let body = json!({ "username": user, "password": PASSWORD });
        let answer = connection.send(&post_json("/v1/login", &body))?;
        let right = match answer.status {
            200 => true,
            503 => answer.header("retry-after").is_some(),
            _ => false,
        };
        ensure!(right, "neither 200 nor 503 with Retry-After: {}", answer.head);
        Ok(answer.status)
    };
    // Connections first, so that the logins themselves come together.
    let connections: Result<Vec<_>> = users.iter().map(|_| Connection::open(address)).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = users
            .iter()
            .zip(connections?)
            .map(|(user, connection)| scope.spawn(move || login(user, connection)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<u16>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a login panicked")))
        };
        threads.into_iter().map(join).collect()
    })
}
