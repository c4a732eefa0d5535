//! Puts the layers of settings on each other, and tells which one a faulty value is in.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::{Table, Value};

use super::{ConfigError, Document, ENVIRONMENT_PREFIX, FOREIGN_VARIABLES, Flags, SECRET_VARIABLES, Source};

/// Some of the settings, from one place.
struct Layer {
    source_of: Source,
    values: Table,
}

/// The document that all layers give together. Each layer is also checked alone, over the defaults, so that a fault
/// is reported where it was written even if another layer hides it.
pub(super) fn combined(
    file: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &Flags,
) -> Result<Document, ConfigError> {
    let defaults = default_values()?;
    let mut layers = Vec::new();
    if let Some(path) = file {
        layers.push(file_layer(path)?);
    }
    for (name, text) in environment {
        if FOREIGN_VARIABLES.contains(&name.as_str()) || SECRET_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        if let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            layers.push(environment_layer(&defaults, name, rest, text)?);
        }
    }
    let Flags { listen, issuer, data_dir } = flags;
    let data_dir = data_dir.as_ref().map(|path| path.display().to_string());
    for (name, key, value) in [
        ("--listen", "listen", listen),
        ("--issuer", "issuer", issuer),
        ("--data-dir", "data_dir", &data_dir),
    ] {
        if let Some(value) = value {
            let values = Table::from_iter([(key.to_owned(), Value::String(value.clone()))]);
            layers.push(Layer { source_of: Source::Flag(name), values });
        }
    }
    let mut all = defaults.clone();
    for layer in layers {
        let mut alone = defaults.clone();
        lay(&mut alone, layer.values.clone());
        let document = read(alone, &layer.source_of)?;
        match document.checked() {
            Err(fault) if !fault.is_relation() => return Err(fault.at(layer.source_of)),
            Ok(_) | Err(_) => {}
        }
        lay(&mut all, layer.values);
    }
    read(all, &Source::Combined)
}

fn default_values() -> Result<Table, ConfigError> {
    Table::try_from(Document::default()).map_err(|error| ConfigError::Type {
        key: "defaults".to_owned(),
        problem: error.to_string(),
        source_of: Source::Combined,
    })
}

fn file_layer(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
    let values = text.parse::<Table>().map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(&text, error.span()),
        problem: error.message().to_owned(),
    })?;
    Ok(Layer { source_of: Source::File(path.to_owned()), values })
}

/// The number of the line where a span begins, from 1 on.
fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    before.matches('\n').count() + 1
}

/// One variable. The type it must have is that of the default it replaces: text needs no quotes, and a list or a table is
/// written as TOML.
fn environment_layer(defaults: &Table, name: &str, rest: &str, text: &str) -> Result<Layer, ConfigError> {
    let source_of = Source::Environment(name.to_owned());
    let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    let key = path.join(".");
    let unknown = || ConfigError::Unknown { key: key.clone(), source_of: source_of.clone() };
    let (last, parents) = path.split_last().ok_or_else(unknown)?;
    let mut table = defaults;
    for parent in parents {
        table = table.get(parent).and_then(Value::as_table).ok_or_else(unknown)?;
    }
    let default = table.get(last).ok_or_else(unknown)?;
    let expected = |what: &str| ConfigError::Type {
        key: key.clone(),
        problem: format!("expected {what}"),
        source_of: source_of.clone(),
    };
    let value = match default {
        Value::String(_) => Value::String(text.to_owned()),
        Value::Integer(_) => Value::Integer(text.parse().map_err(|_| expected("an integer"))?),
        Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| expected("true or false"))?),
        Value::Float(_) => Value::Float(text.parse().map_err(|_| expected("a number"))?),
        Value::Datetime(_) => Value::Datetime(text.parse().map_err(|_| expected("a date"))?),
        Value::Array(_) | Value::Table(_) => {
            let mut parsed: Table =
                format!("value = {text}").parse().map_err(|_| expected("a value in TOML"))?;
            parsed.remove("value").ok_or_else(|| expected("a value in TOML"))?
        }
    };
    let mut values = Table::from_iter([(last.clone(), value)]);
    for parent in parents.iter().rev() {
        values = Table::from_iter([(parent.clone(), Value::Table(values))]);
    }
    Ok(Layer { source_of, values })
}

/// Puts `over` on `under`: tables are merged, everything else is replaced.
fn lay(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => lay(below, above),
            (Some(below), above) => *below = above,
            (None, above) => {
                under.insert(key, above);
            }
        }
    }
}

fn read(values: Table, source_of: &Source) -> Result<Document, ConfigError> {
    serde_path_to_error::deserialize(Value::Table(values)).map_err(|error| {
        let key = error.path().to_string();
        let problem = error.into_inner().message().to_owned();
        if problem.starts_with("unknown field") {
            let key = unknown_key(&key, &problem);
            return ConfigError::Unknown { key, source_of: source_of.clone() };
        }
        ConfigError::Type { key, problem: without_value(&problem), source_of: source_of.clone() }
    })
}

/// What was expected, without what was written: that may be a password in the place of something else.
fn without_value(problem: &str) -> String {
    match problem.split_once(", expected ") {
        Some((written, expected)) if written.starts_with("invalid ") => format!("expected {expected}"),
        Some(_) | None => problem.to_owned(),
    }
}

/// The path of the key that is not known: serde names it in its message, its parents are in the path.
fn unknown_key(path: &str, problem: &str) -> String {
    let name = problem.split('`').nth(1).unwrap_or_default();
    if path == "." {
        name.to_owned()
    } else if path == name || path.ends_with(&format!(".{name}")) {
        path.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
