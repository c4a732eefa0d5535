//! Builds the module that Envoy loads and strips it to what Envoy calls.
//!
//! The same sources, toolchain and lock file give the same bytes on every machine: no path of the machine that built it
//! enters the module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Error, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::tools::{FileLock, WASM_TARGET, cargo, ensure_wasm_target, first_line, run};
use crate::{environment, target_directory, workspace_root};

/// Which of the two builds of the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// What users load.
    #[default]
    Shipped,
    /// With the filter's `probe` feature: for tests only.
    Probe,
}

/// The exports that stay. Envoy calls every callback that a module exports, and each call crosses into the VM; a callback
/// that the filter leaves at its default therefore costs time and does nothing, and the SDK exports all of them.
pub const KEPT_EXPORTS: [&str; 14] = [
    "memory",
    "malloc",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_response_headers",
    "proxy_on_http_call_response",
    "proxy_on_delete",
];

/// The exports without which Envoy would refuse the module, or accept it and never ask it about a request.
const REQUIRED_EXPORTS: [&str; 5] = [
    "memory",
    "_initialize",
    "proxy_abi_version_0_2_1",
    "proxy_on_context_create",
    "proxy_on_request_headers",
];

/// The size that the shipped module must not exceed.
pub const MODULE_BYTES_MAX: usize = 1_100_000;

/// Builds a variant, at most once in this process, and gives its path: `target/tollgate_filter.wasm` or
/// `target/tollgate_filter_probe.wasm`.
///
/// # Errors
/// When it does not compile, lacks an export, or the shipped one is larger than [`MODULE_BYTES_MAX`].
pub fn build(variant: Variant) -> Result<PathBuf> {
    static SHIPPED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    static PROBE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let once = match variant {
        Variant::Shipped => &SHIPPED,
        Variant::Probe => &PROBE,
    };
    once.get_or_init(|| compile(variant).map_err(|error| format!("{error:#}"))).clone().map_err(Error::msg)
}

/// Where the linker left a variant that was built, with every export that the SDK makes.
pub fn linked(variant: Variant) -> PathBuf {
    target_directory().join(variant.folder()).join(WASM_TARGET).join("module/tollgate_filter.wasm")
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_hex(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Variant {
    /// The name of the variant's own target folder, inside the workspace's.
    fn folder(self) -> &'static str {
        match self {
            Self::Shipped => "module-shipped",
            Self::Probe => "module-probe",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Shipped => "tollgate_filter.wasm",
            Self::Probe => "tollgate_filter_probe.wasm",
        }
    }
}

fn compile(variant: Variant) -> Result<PathBuf> {
    let path = target_directory().join(variant.file());
    let folder = target_directory().join(variant.folder());
    let _lock = FileLock::acquire(&folder.with_extension("lock"))?;
    ensure_wasm_target()?;
    run(&mut build_command(variant, &folder)?)?;
    let compiled = linked(variant);
    let compiled = fs::read(&compiled).with_context(|| format!("reading {}", compiled.display()))?;
    let stripped = strip(&compiled)?;
    if variant == Variant::Shipped {
        let size = stripped.len();
        ensure!(size <= MODULE_BYTES_MAX, "the module has {size} bytes; the ceiling is {MODULE_BYTES_MAX}");
    }
    replace_if_changed(&path, &stripped)?;
    Ok(path)
}

/// `cargo rustc` rather than `cargo build`, because it can be told the one kind of library that is wanted: cargo leaves out
/// link-time optimisation for a package that is an `rlib` as well.
fn build_command(variant: Variant, folder: &Path) -> Result<Command> {
    let mut cargo = cargo();
    cargo.args([
        "rustc",
        "--quiet",
        "--locked",
        "--package",
        "tollgate-filter",
        "--lib",
        "--crate-type",
        "cdylib",
    ]);
    cargo.args(["--target", WASM_TARGET, "--profile", "module", "--target-dir"]).arg(folder);
    if variant == Variant::Probe {
        cargo.args(["--features", "probe"]);
    }
    cargo
        .arg("--config")
        .arg(format!("target.{WASM_TARGET}.rustflags={}", serde_json::to_string(&remaps()?)?));
    for flags in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
    ] {
        cargo.env_remove(flags);
    }
    Ok(cargo)
}

/// The flags that replace the paths of this machine in panic messages by names that are the same everywhere.
fn remaps() -> Result<Vec<String>> {
    let mut sysroot = Command::new("rustc");
    let sysroot = first_line(&run(sysroot.args(["--print", "sysroot"]).current_dir(workspace_root()))?);
    let cargo_home = match (environment("CARGO_HOME"), environment("HOME")) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => Path::new(&home).join(".cargo"),
        (None, None) => return Err(Error::msg("neither CARGO_HOME nor HOME is set")),
    };
    let mut places = vec![
        (workspace_root(), "/tollgate"),
        (Path::new(&sysroot).join("lib/rustlib/src/rust"), "/rust"),
        (cargo_home.clone(), "/cargo"),
    ];
    // The last match wins. A registry's folder is named after where the registry is, which differs behind a mirror.
    let registries = fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten().flatten();
    let mut registries: Vec<PathBuf> = registries.map(|entry| entry.path()).collect();
    registries.sort();
    places.extend(registries.into_iter().map(|registry| (registry, "/crates")));
    Ok(places.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect())
}

/// Drops the exports that Envoy need not call, the code that only they reached, and every custom section.
fn strip(compiled: &[u8]) -> Result<Vec<u8>> {
    let mut config = walrus::ModuleConfig::new();
    config.generate_name_section(false).generate_producers_section(false);
    let mut module = config.parse(compiled).context("the compiler's output is not a module")?;
    let dropped: Vec<_> = module
        .exports
        .iter()
        .filter(|export| !KEPT_EXPORTS.contains(&&*export.name))
        .map(|export| export.id())
        .collect();
    for export in dropped {
        module.exports.delete(export);
    }
    for required in REQUIRED_EXPORTS {
        ensure!(
            module.exports.iter().any(|export| export.name == required),
            "the module does not export {required}"
        );
    }
    let sections: Vec<_> = module.customs.iter().map(|(id, _)| id).collect();
    for section in sections {
        module.customs.delete(section);
    }
    walrus::passes::gc::run(&mut module);
    Ok(module.emit_wasm())
}

/// Replaces a file in one step, and leaves it untouched when it has these bytes.
fn replace_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let unfinished = path.with_extension("wasm.tmp");
    fs::write(&unfinished, bytes).with_context(|| format!("writing {}", unfinished.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("renaming to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_file_is_the_published_one_of_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(&path).unwrap(), expected);
    }

    #[test]
    fn only_what_envoy_calls_is_left() {
        let mut module = walrus::Module::default();
        let mut add = |name: &str| {
            let mut function = walrus::FunctionBuilder::new(&mut module.types, &[], &[]);
            function.func_body();
            let function = function.finish(vec![], &mut module.funcs);
            module.exports.add(name, function);
        };
        let unwanted = ["proxy_on_log", "proxy_on_new_connection"];
        KEPT_EXPORTS.iter().filter(|name| **name != "memory").chain(&unwanted).for_each(|name| add(name));
        let memory = module.memories.add_local(false, false, 1, None, None);
        module.exports.add("memory", memory);
        module.customs.add(walrus::RawCustomSection { name: "note".to_owned(), data: vec![1] });

        let stripped = walrus::Module::from_buffer(&strip(&module.emit_wasm()).unwrap()).unwrap();
        let mut names: Vec<&str> = stripped.exports.iter().map(|export| export.name.as_str()).collect();
        let mut kept = KEPT_EXPORTS.to_vec();
        names.sort_unstable();
        kept.sort_unstable();
        assert_eq!(names, kept);
        assert_eq!(stripped.funcs.iter().count(), KEPT_EXPORTS.len() - 1);
        assert_eq!(stripped.customs.iter().count(), 0);
    }

    #[test]
    fn module_that_envoy_could_not_use_is_refused() {
        let refused = strip(&walrus::Module::default().emit_wasm()).unwrap_err().to_string();
        assert!(refused.contains("does not export"), "{refused}");
    }
}
