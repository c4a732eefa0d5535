//! For the probe build only, which tests load: a request may set the clock, read the state, check a bare signature, or
//! trap the VM. The shipped module has none of it.

use base64ct::{Base64UrlUnpadded, Encoding};
use tollgate_shared::revocation::StatusIndex;
use tollgate_shared::time::{Now, UnixMillis};
use tollgate_shared::token::{SignatureBackend, VerifyingKey};

use super::crypto::HostCrypto;
use super::host::{self, ProcessData};
use super::root::Vm;
use crate::engine::{Decision, Denial, Refusal, SharedData};

/// The answer to a probe; `None` for every other request.
pub(super) fn answer(vm: &Vm, headers: &[(&[u8], &[u8])]) -> Option<Decision> {
    let text = |wanted: &str| {
        let (_, value) = headers.iter().find(|(name, _)| *name == wanted.as_bytes())?;
        std::str::from_utf8(value).ok()
    };
    let command = text("x-tollgate-probe")?;
    let body = match command.split_once('=').unwrap_or((command, "")) {
        ("advance", millis) => {
            shift_clocks(millis.parse().unwrap_or_default());
            "{}".to_owned()
        }
        ("state", _) => state(vm),
        ("lead", _) => format!("{{\"seized\":{}}}", vm.seize_lead()),
        ("lookups", count) => lookups(vm, count.parse().unwrap_or_default()),
        ("verify", _) => {
            let bytes = |name| text(name).and_then(|text| Base64UrlUnpadded::decode_vec(text).ok());
            let key = match (text("x-probe-alg")?, bytes("x-probe-key")?) {
                ("EdDSA", key) => key.try_into().ok().and_then(|key| VerifyingKey::ed25519(&key).ok()),
                ("ES256", key) => key.split_at_checked(32).and_then(|(x, y)| VerifyingKey::p256(x, y).ok()),
                ("RS256", key) => VerifyingKey::rsa(&key, &bytes("x-probe-exponent")?).ok(),
                _ => None,
            };
            let message = bytes("x-probe-message").unwrap_or_default();
            let signature = bytes("x-probe-signature").unwrap_or_default();
            let valid = key.is_some_and(|key| HostCrypto::default().verify(&key, &message, &signature));
            format!("{{\"valid\":{valid}}}")
        }
        ("trap", _) => core::arch::wasm32::unreachable(),
        _ => return None,
    };
    Some(Decision::Refuse(Refusal { status: 200, headers: Vec::new(), body, denial: Denial::NotReady }))
}

/// What both clocks of every VM of this process are ahead by, in milliseconds.
const SHIFT: &str = "tollgate.probe.shift";

fn shift_millis() -> u64 {
    let shared = ProcessData.read(SHIFT).and_then(|(value, _)| value.try_into().ok());
    shared.map(u64::from_le_bytes).unwrap_or_default()
}

fn shift_clocks(millis: u64) {
    let shift = shift_millis().saturating_add(millis);
    // A probe that fails is noticed by the test that sent it.
    let _ = ProcessData.write(SHIFT, &shift.to_le_bytes(), None);
}

/// What the clocks show.
pub(super) fn shifted(now: Now) -> Now {
    let shift = shift_millis();
    Now { wall: UnixMillis(now.wall.0.saturating_add(shift)), monotonic: now.monotonic.plus(shift) }
}

fn state(vm: &Vm) -> String {
    let now = vm.now();
    let state = vm.with_engine(|engine| {
        let metrics = engine.metrics(now);
        let requests: serde_json::Map<_, _> = metrics
            .requests()
            .map(|(outcome, reason, count)| (format!("{outcome}.{reason}"), count.into()))
            .collect();
        let counters: serde_json::Map<_, _> =
            metrics.counters().map(|(counter, count)| (counter.name().to_owned(), count.into())).collect();
        serde_json::json!({
            "ticks": vm.ticks(),
            "leads": engine.leads(),
            "busy": engine.next_tick_millis() <= 1,
            "position": engine.position(),
            "revoked": engine.revocations().map(|revoked| revoked.indices.len()),
            "memory_bytes": core::arch::wasm32::memory_size(0) * 65_536,
            "slowest_step_nanoseconds": vm.take_slowest(),
            "stepped_nanoseconds": vm.stepped(),
            "ready": engine.is_ready(now.monotonic),
            "requests": requests,
            "counters": counters,
        })
    });
    state.unwrap_or_default().to_string()
}

/// Looks up so many indices, spread over all there are and others each time; says how long that took, and how long it took
/// to make up as many.
fn lookups(vm: &Vm, count: u64) -> String {
    let first = host::monotonic_nanoseconds();
    let spread = |number: u64| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 % 100_000_000;
    let timed = |look: &dyn Fn(u32) -> bool| {
        let began = host::monotonic_nanoseconds();
        let found =
            (first..first + count).filter(|number| look(core::hint::black_box(spread(*number)))).count();
        (host::monotonic_nanoseconds().saturating_sub(began), found)
    };
    let made = timed(&|index| index == 0);
    let looked = vm.with_engine(|engine| {
        engine.revocations().map(|revoked| timed(&|index| revoked.indices.contains(StatusIndex(index))))
    });
    let (nanoseconds, found) = looked.flatten().unwrap_or_default();
    serde_json::json!({ "nanoseconds": nanoseconds, "found": found, "without_nanoseconds": made.0 })
        .to_string()
}
