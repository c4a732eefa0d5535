//! Runs `schemathesis` from PyPI: it makes requests of what an OpenAPI document says, and compares the answers with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::foreign::python_packages;
use crate::workspace_root;

/// What is asked, and as whom.
#[derive(Clone, Debug)]
pub struct Examination<'e> {
    /// A word for it, in the names of its files.
    pub name: &'e str,
    /// Where the service listens, without a slash at its end. Its document is at `/openapi.json`.
    pub base_url: &'e str,
    /// The `Authorization` of every request.
    pub authorization: &'e str,
    /// Which operations, by a regular expression for their paths.
    pub paths: &'e str,
    /// Which of those not.
    pub but: Option<&'e str>,
    /// Which values there are, by operation (its method and path) and by member as `path.…` or `body.…`: most requests use
    /// one of them.
    pub known: &'e [(&'e str, &'e str, &'e [&'e str])],
    /// What is looked at in each answer, by schemathesis' names.
    pub checks: &'e [&'e str],
    /// How many random requests there are for each operation, beside those that go through its bounds.
    pub examples: u32,
    /// The same number makes the same requests.
    pub seed: u32,
}

/// What came of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Examined {
    /// How many operations there were.
    pub operations: Operations,
    /// How many requests.
    pub test_cases: Requests,
    /// What was found.
    pub failures: Vec<serde_json::Value>,
    /// What kept it from looking.
    pub errors: Vec<serde_json::Value>,
    /// With which statuses each operation, by its method and path, was answered.
    #[serde(skip)]
    pub answers: BTreeMap<String, BTreeSet<u16>>,
}

/// How many operations there were.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Operations {
    /// That were meant.
    pub selected: usize,
    /// That were asked.
    pub tested: usize,
    /// That could not be asked.
    pub errored: usize,
    /// That were left out.
    pub skipped: usize,
}

/// How many requests there were.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Requests {
    /// In all.
    pub generated: usize,
}

impl Examination<'_> {
    /// Runs it to its end, on this thread; schemathesis is installed first when it is absent. Gives also what it wrote for
    /// people, with the request behind each failure.
    ///
    /// # Errors
    /// When it cannot be installed, or ends without a report.
    pub fn run(&self, folder: &Path) -> Result<(Examined, String)> {
        let Self { name, base_url, authorization, paths, but, known, checks, examples, seed } = self;
        let requirements = workspace_root().join("tests/e2e/openapi/requirements.txt");
        let packages = python_packages("schemathesis", &requirements)?;
        let report = folder.join(format!("{name}-report.json"));
        let requests = folder.join(format!("{name}-requests.ndjson"));
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(folder);
        let settings = folder.join(format!("{name}-schemathesis.toml"));
        std::fs::write(&settings, known_values(known))?;
        python.args(["-m", "schemathesis.cli", "--config-file"]).arg(settings);
        python.args(["run", &format!("{base_url}/openapi.json")]);
        python.args(["--url", base_url, "--header", &format!("Authorization: {authorization}")]);
        python.args(["--include-path-regex", paths]);
        if let Some(but) = but {
            python.args(["--exclude-path-regex", but]);
        }
        python.args(["--checks", &checks.join(",")]);
        python.args(["--phases", "examples,coverage,fuzzing", "--max-examples", &examples.to_string()]);
        python.args(["--seed", &seed.to_string(), "--generation-database", "none", "--continue-on-failure"]);
        python.args(["--request-timeout", "20", "--no-color", "--report", "json,ndjson"]);
        python.arg("--report-json-path").arg(&report).arg("--report-ndjson-path").arg(&requests);
        let output = python.output().context("starting schemathesis")?;
        let wrote =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(report.exists(), "schemathesis ended with {} and no report:\n{wrote}", output.status);
        let mut examined: Examined =
            serde_json::from_slice(&std::fs::read(&report)?).context("schemathesis' report")?;
        examined.answers = answers(&std::fs::read_to_string(&requests)?).context("schemathesis' requests")?;
        Ok((examined, wrote))
    }
}

/// The file of settings that has schemathesis use these values.
fn known_values(known: &[(&str, &str, &[&str])]) -> String {
    let mut operations: BTreeMap<&str, String> = BTreeMap::new();
    let mut text = String::new();
    for (place, (operation, member, values)) in known.iter().enumerate() {
        text.push_str(&format!("[dictionaries.values-{place}]\nvalues = {values:?}\n"));
        operations.entry(operation).or_default().push_str(&format!(
            "{member:?} = {{ dictionary = \"values-{place}\", probability = {KNOWN_PROBABILITY} }}\n"
        ));
    }
    for (operation, parameters) in operations {
        text.push_str(&format!(
            "[[operations]]\ninclude-name = {operation:?}\n[operations.parameters]\n{parameters}"
        ));
    }
    text
}

/// How often a value that is known is used: not always, so that others are tried as well.
const KNOWN_PROBABILITY: f64 = 0.8;

/// One line of what it writes while it runs.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "ScenarioFinished")]
    finished: Option<Scenario>,
}

/// Some requests to one operation.
#[derive(Deserialize)]
struct Scenario {
    recorder: Recorder,
}

#[derive(Deserialize)]
struct Recorder {
    /// The operation's method and path.
    label: String,
    #[serde(default)]
    interactions: BTreeMap<String, Interaction>,
}

#[derive(Deserialize)]
struct Interaction {
    request: Request,
    response: Option<Answer>,
}

#[derive(Deserialize)]
struct Request {
    method: String,
}

#[derive(Deserialize)]
struct Answer {
    status_code: u16,
}

fn answers(lines: &str) -> serde_json::Result<BTreeMap<String, BTreeSet<u16>>> {
    let mut answers: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for line in lines.lines() {
        let Some(Scenario { recorder }) = serde_json::from_str::<Line>(line)?.finished else { continue };
        let Recorder { label, interactions } = recorder;
        let method = label.split(' ').next().unwrap_or_default().to_owned();
        // It also asks with methods that there are not.
        let own = interactions.into_values().filter(|one| one.request.method == method);
        let statuses = own.filter_map(|one| one.response).map(|answer| answer.status_code);
        answers.entry(label).or_default().extend(statuses);
    }
    Ok(answers)
}
