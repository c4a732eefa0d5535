//! `config`: what is checked and shown without any data.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::CliError;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check the configuration of a filter, YAML or JSON
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print the settings that are in force
    Show,
}

/// Checks the configuration of a filter.
pub(super) fn check(path: &Path, output: &mut impl Write) -> Result<(), CliError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| CliError::File { path: path.to_owned(), error })?;
    let yaml =
        |error: serde_saphyr::Error| CliError::Yaml { path: path.to_owned(), problem: error.to_string() };
    let value: serde_json::Value = serde_saphyr::from_str(&text).map_err(yaml)?;
    tollgate_filter::config::Config::parse(value.to_string().as_bytes())
        .map_err(|fault| CliError::Filter { path: path.to_owned(), fault })?;
    Ok(writeln!(output, "ok")?)
}
