//! The program `tollgate-issuer` as tests run it to have it killed: it ends in the middle of a step that it is told, its
//! clock can be set ahead, and it carries out orders that have no command.
//!
//! `TOLLGATE_CRASH_AT=rotate.before_commit:2` has it kill itself when it reaches that step for the second time, by the
//! signal that nothing can be done about; steps before an order of `act` is begun do not count. `TOLLGATE_CLOCK_AHEAD=120`
//! sets its clock ahead by so many seconds. `TOLLGATE_DELAY_AT=feed.before_commit:20` has it wait there each time, for up to so
//! many milliseconds at random. It is a program of its own, so that there is nothing of this in the one that is
//! shipped.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use rustix::process::{Signal, getpid, kill_process};
use tollgate_issuer::App;
use tollgate_issuer::cli::{Cli, run};
use tollgate_issuer::clock::{EntropyError, Host, SystemHost, random_below};
use tollgate_issuer::config::{Flags, Settings};
use tollgate_issuer::password::{NewPassword, Password, PasswordContext};
use tollgate_issuer::store::{SlotMove, UserChange};
use tollgate_shared::id::KeyId;
use tollgate_shared::time::{Monotonic, Now, UnixMillis};
use zeroize::Zeroizing;

/// The machine, but for one step and the date.
#[derive(Debug)]
struct CrashingHost {
    system: SystemHost,
    ahead_millis: AtomicU64,
    /// Whether steps count.
    armed: AtomicBool,
    crash: Option<Crash>,
    delay: Option<Delay>,
}

#[derive(Debug)]
struct Delay {
    step: String,
    millis_max: u64,
}

#[derive(Debug)]
struct Crash {
    step: String,
    left: AtomicU64,
}

impl CrashingHost {
    /// What the variables say; they are taken out, for they are no settings.
    fn new(environment: &mut BTreeMap<String, String>) -> Result<Self> {
        let crash = match environment.remove("TOLLGATE_CRASH_AT") {
            None => None,
            Some(text) => {
                let (step, turn) = text.split_once(':').unwrap_or((&text, "1"));
                let left = AtomicU64::new(turn.parse().context("TOLLGATE_CRASH_AT")?);
                Some(Crash { step: step.to_owned(), left })
            }
        };
        let delay = match environment.remove("TOLLGATE_DELAY_AT") {
            None => None,
            Some(text) => {
                let (step, millis) = text.split_once(':').context("TOLLGATE_DELAY_AT")?;
                let millis_max = millis.parse().context("TOLLGATE_DELAY_AT")?;
                Some(Delay { step: step.to_owned(), millis_max })
            }
        };
        let ahead = environment.remove("TOLLGATE_CLOCK_AHEAD").unwrap_or_else(|| "0".to_owned());
        let ahead_millis = ahead.parse::<u64>().context("TOLLGATE_CLOCK_AHEAD")? * 1000;
        let (ahead_millis, armed) = (AtomicU64::new(ahead_millis), AtomicBool::new(true));
        Ok(Self { system: SystemHost::new(), ahead_millis, armed, crash, delay })
    }
}

impl Host for CrashingHost {
    fn now(&self) -> Now {
        let Now { wall, monotonic } = self.system.now();
        let ahead = self.ahead_millis.load(Ordering::SeqCst);
        Now { wall: UnixMillis(wall.0 + ahead), monotonic: Monotonic(monotonic.0 + ahead) }
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        self.system.fill(bytes)
    }

    #[expect(clippy::disallowed_methods, reason = "that time passes here is what is tried")]
    fn reached(&self, step: &'static str) {
        if let Some(delay) = self.delay.as_ref().filter(|delay| delay.step == step) {
            let millis = random_below(self, delay.millis_max + 1).unwrap_or_default();
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(millis)));
        }
        let Some(crash) = self.crash.as_ref().filter(|_| self.armed.load(Ordering::SeqCst)) else { return };
        if crash.step == step && crash.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // No destructor runs after this, nothing is flushed, and no other thread goes on.
            let _ = kill_process(getpid(), Signal::KILL);
            std::process::abort();
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let words: Vec<String> = std::env::args().collect();
    let ended = match (CrashingHost::new(&mut environment), words.get(1).map(String::as_str)) {
        (Err(error), _) => Err(error),
        (Ok(host), Some("act")) => act(&environment, Arc::new(host), &words).await,
        (Ok(host), _) => {
            let (input, output) = (&mut std::io::stdin().lock(), &mut std::io::stdout());
            run(Cli::parse(), &environment, Arc::new(host), input, output).await.map_err(Into::into)
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "crashing: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Carries out one order on the data that the environment names.
async fn act(
    environment: &BTreeMap<String, String>,
    crashing: Arc<CrashingHost>,
    words: &[String],
) -> Result<()> {
    let settings = Settings::load(None, environment, &Flags::default())?;
    crashing.armed.store(false, Ordering::SeqCst);
    let host: Arc<dyn Host> = Arc::<CrashingHost>::clone(&crashing);
    let app = App::open(settings, host).await?;
    crashing.armed.store(true, Ordering::SeqCst);
    let words: Vec<&str> = words.iter().skip(2).map(String::as_str).collect();
    match *words.as_slice() {
        ["set-password", name, password] => set_password(&app, name, password).await?,
        ["delete", user] => {
            app.store.delete_user(user, None, "test", &*app.host).await?;
            app.feed.publish_outbox().await?;
        }
        ["withdraw-key", key] => {
            let key = KeyId::new(key).context("not a key")?;
            app.withdraw_key(&key, "a test", "test").await?;
        }
        ["rotate-keys", days] => {
            crashing.ahead_millis.fetch_add(days.parse::<u64>()? * 86_400_000, Ordering::SeqCst);
            app.rotate_keys().await?;
        }
        ["move", slot] => move_slot(&app, slot.parse()?).await?,
        _ => bail!("no such order: {words:?}"),
    }
    app.store.close().await;
    Ok(())
}

async fn set_password(app: &App, name: &str, password: &str) -> Result<()> {
    let known = app.store.user_named(name).await?.context("no such user")?;
    let context = PasswordContext { username: name, issuer: app.settings.issuer.as_str() };
    let password = Password::new(Zeroizing::new(password.to_owned()))?;
    let hash = app.passwords.hash(&NewPassword::new(password, &context)?).await?;
    let change =
        UserChange { user: &known.user, password_hash: Some(&hash), if_version: None, actor: "test" };
    app.store.change_user(&change, &*app.host).await?;
    Ok(app.feed.publish_outbox().await?)
}

/// Moves a slot from the first database to the second, or takes the move up that was begun.
async fn move_slot(app: &App, slot: u8) -> Result<()> {
    let map = app.store.slot_map().await?;
    let (_, from, _) = map.into_iter().find(|(known, _, _)| *known == slot).context("no such slot")?;
    Ok(app.store.move_slot(SlotMove { slot, from, to: 1 }).await?)
}
