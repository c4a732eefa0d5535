//! For the probe build only, which tests load: a request may set the clock, read the state, check a bare signature, or
//! trap the VM. The shipped module has none of it.

use base64ct::{Base64UrlUnpadded, Encoding};
use tollgate_shared::token::{SignatureBackend, VerifyingKey};

use super::crypto::HostCrypto;
use super::root::Vm;
use crate::engine::{Decision, Denial, Refusal};

/// The answer to a probe; `None` for every other request.
pub(super) fn answer(vm: &Vm, headers: &[(&[u8], &[u8])]) -> Option<Decision> {
    let text = |wanted: &str| {
        let (_, value) = headers.iter().find(|(name, _)| *name == wanted.as_bytes())?;
        std::str::from_utf8(value).ok()
    };
    let command = text("x-tollgate-probe")?;
    let body = match command.split_once('=').unwrap_or((command, "")) {
        ("advance", millis) => {
            vm.shift_clock(millis.parse().unwrap_or_default());
            "{}".to_owned()
        }
        ("state", _) => state(vm),
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
            "position": engine.position(),
            "ready": engine.is_ready(now.monotonic),
            "requests": requests,
            "counters": counters,
        })
    });
    state.unwrap_or_default().to_string()
}
