//! Runs `schemathesis` from PyPI: it makes requests of what an OpenAPI document says, and compares the answers with it.

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
    /// The bearer token of every request.
    pub token: &'e str,
    /// Which operations, by a regular expression for their paths.
    pub paths: &'e str,
    /// Which of those not.
    pub but: Option<&'e str>,
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
        let Self { name, base_url, token, paths, but, checks, examples, seed } = self;
        let requirements = workspace_root().join("tests/e2e/openapi/requirements.txt");
        let packages = python_packages("schemathesis", &requirements)?;
        let report = folder.join(format!("{name}-report.json"));
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(folder);
        python.args(["-m", "schemathesis.cli", "run", &format!("{base_url}/openapi.json")]);
        python.args(["--url", base_url, "--header", &format!("Authorization: Bearer {token}")]);
        python.args(["--include-path-regex", paths]);
        if let Some(but) = but {
            python.args(["--exclude-path-regex", but]);
        }
        python.args(["--checks", &checks.join(",")]);
        python.args(["--phases", "examples,coverage,fuzzing", "--max-examples", &examples.to_string()]);
        python.args(["--seed", &seed.to_string(), "--generation-database", "none", "--continue-on-failure"]);
        python.args(["--request-timeout", "20", "--no-color", "--report", "json", "--report-json-path"]);
        let output = python.arg(&report).output().context("starting schemathesis")?;
        let wrote =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        ensure!(report.exists(), "schemathesis ended with {} and no report:\n{wrote}", output.status);
        let examined = serde_json::from_slice(&std::fs::read(&report)?).context("schemathesis' report")?;
        Ok((examined, wrote))
    }
}
