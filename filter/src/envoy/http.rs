//! One HTTP request in Envoy: asks the engine once, in the header callback, and again only if it had to wait.

use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;

use super::host::{self, Level, Map};
use super::root::Vm;
use crate::engine::{Admission, Decision, Patience, Refusal, RequestView, ResponseHeader};

/// The filter's side of one request.
#[derive(Debug)]
pub(super) struct Http {
    context: u32,
    vm: Rc<Vm>,
}

impl Http {
    pub(super) fn new(context: u32, vm: Rc<Vm>) -> Self {
        Self { context, vm }
    }
}

impl Context for Http {}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        match decide(&self.vm, self.vm.patience()) {
            Some(Decision::Admit(admission)) => self.vm.remember(self.context, admit(admission)),
            Some(Decision::Refuse(refusal)) => refuse(&refusal),
            Some(Decision::Wait) => {
                self.vm.wait(self.context);
                Action::Pause
            }
            None => refuse(&closed()),
        }
    }

    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        // What cannot be read or removed does not go on; the stream ends with its timeout.
        let Ok(map) = host::header_map(Map::RequestTrailers) else { return Action::Pause };
        let Some(trailers) = host::pairs(&map) else { return Action::Pause };
        let names: Vec<&[u8]> = trailers.into_iter().map(|(name, _)| name).collect();
        let removed = |name: Vec<u8>| host::remove_header(Map::RequestTrailers, &name).is_ok();
        if self.vm.owned_among(&names).into_iter().all(removed) { Action::Continue } else { Action::Pause }
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        for (name, value) in self.vm.recall(self.context) {
            // The response stands without it.
            let _ = host::set_header(Map::ResponseHeaders, name, value.as_bytes());
        }
        Action::Continue
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.vm.forget(self.context);
    }
}

/// Asks the engine about the request of the effective context. `None` when the host does not show it, or there is no
/// engine.
pub(super) fn decide(vm: &Vm, patience: Patience) -> Option<Decision> {
    let map = host::header_map(Map::RequestHeaders).ok()?;
    let headers = host::pairs(&map)?;
    #[cfg(feature = "probe")]
    if let Some(answer) = super::probe::answer(vm, &headers) {
        return Some(answer);
    }
    let pseudo = |wanted: &[u8]| headers.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let method = pseudo(b":method").unwrap_or_default();
    // CONNECT has no path; an empty one is refused as malformed.
    let path = pseudo(b":path").unwrap_or_default();
    vm.check(&RequestView { method, path, headers: &headers }, patience)
}

/// Makes the changes to an admitted request. The application must never see it without them, so when the host refuses one
/// the request is answered here.
pub(super) fn admit(admission: Admission) -> Result<Vec<ResponseHeader>, Refusal> {
    let Admission { strip, set, respond } = admission;
    let stripped = strip.iter().all(|name| host::remove_header(Map::RequestHeaders, name).is_ok());
    let all_set = set.iter().all(|(name, value)| host::set_header(Map::RequestHeaders, name, value).is_ok());
    if stripped && all_set { Ok(respond) } else { Err(closed()) }
}

pub(super) fn refuse(refusal: &Refusal) -> Action {
    let reason = refusal.denial.reason();
    if host::send_response(refusal.status, &format!("tollgate_{reason}"), &refusal.headers, &refusal.body)
        .is_err()
    {
        host::log(Level::Warn, "a refusal could not be sent; the request stays paused until its timeout");
    }
    // Paused whether or not the answer was sent: what is not admitted does not go on.
    Action::Pause
}

/// The answer when the adapter itself cannot go on: closed, never open.
pub(super) fn closed() -> Refusal {
    let headers = vec![("retry-after", "1".to_owned())];
    Refusal { status: 503, headers, body: String::new(), denial: crate::engine::Denial::NotReady }
}
