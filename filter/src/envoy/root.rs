//! One VM in Envoy: its engine, the calls it has under way and the requests that wait for one of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls::dispatch_http_call;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, Status};
use tollgate_shared::time::{Monotonic, Now, UnixMillis};

use super::crypto::HostCrypto;
use super::host::{self, Buffer, Level, Map, MetricKind, ProcessData};
use super::http::{self, Http};
use crate::config::Config;
use crate::engine::{
    Admission, AnswerFault, Body, Call, CallFailure, CallId, Decision, Engine, HostBody, Metrics, Patience,
    Refusal, Reply, RequestView, ResponseHeader, WAIT_MILLIS,
};

/// The time to the next tick when a request waits for a call. Calls are made from ticks only: one made by a request would
/// be answered to that request, and lost with it.
const URGENT_TICK_MILLIS: u32 = 1;
/// The time between two exports of what was counted, in milliseconds.
const EXPORT_MILLIS: u64 = 200;
/// The most requests of one VM that wait at once; more are refused.
const WAITING_MAX: usize = 1024;

/// The root context: one for each VM.
#[derive(Debug)]
pub(super) struct Root {
    context: u32,
    vm: Rc<Vm>,
}

/// What the contexts of a VM share. Nothing in it stays borrowed across a host call that could come back.
#[derive(Debug)]
pub(super) struct Vm {
    /// Both clocks at the latest tick.
    ticked: Cell<Now>,
    engine: RefCell<Option<FilterEngine>>,
    calls: RefCell<BTreeMap<u32, UnderWay>>,
    waiting: RefCell<Vec<Waiting>>,
    /// Headers for the responses of admitted requests.
    responses: RefCell<BTreeMap<u32, Vec<ResponseHeader>>>,
    credential: RefCell<Secret>,
    /// What was last logged of each cluster, or of the board.
    faults: RefCell<BTreeMap<String, AnswerFault>>,
    metrics: RefCell<Exported>,
    exported_at: Cell<Monotonic>,
    /// The time between ticks that the host was last told, in milliseconds.
    period: Cell<u32>,
    /// The longest that a tick or the answer to a call took, in nanoseconds.
    #[cfg(feature = "probe")]
    slowest_nanoseconds: Cell<u64>,
    /// The time that ticks and answers took together, in nanoseconds.
    #[cfg(feature = "probe")]
    stepped_nanoseconds: Cell<u64>,
    #[cfg(feature = "probe")]
    ticks: Cell<u64>,
}

type FilterEngine = Engine<HostCrypto, ProcessData>;

/// A call that was made.
#[derive(Debug)]
struct UnderWay {
    id: CallId,
    cluster: String,
}

/// What faults of what other VMs published are logged under.
const BOARD: &str = "the board of this process";

/// The edge's credential; it prints nothing of itself.
#[derive(Default)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    context: u32,
    since: Monotonic,
}

/// What Envoy's statistics were last told.
#[derive(Debug, Default)]
struct Exported {
    ids: BTreeMap<String, u32>,
    counts: BTreeMap<String, u64>,
}

impl Root {
    pub(super) fn new(context: u32) -> Self {
        let vm = Vm {
            ticked: Cell::new(clocks()),
            engine: RefCell::new(None),
            calls: RefCell::default(),
            waiting: RefCell::default(),
            responses: RefCell::default(),
            credential: RefCell::default(),
            faults: RefCell::default(),
            metrics: RefCell::default(),
            exported_at: Cell::default(),
            period: Cell::new(URGENT_TICK_MILLIS),
            #[cfg(feature = "probe")]
            slowest_nanoseconds: Cell::default(),
            #[cfg(feature = "probe")]
            stepped_nanoseconds: Cell::default(),
            #[cfg(feature = "probe")]
            ticks: Cell::default(),
        };
        Self { context, vm: Rc::new(vm) }
    }

    fn configure(&self) -> Result<(), String> {
        let json = host::buffer(Buffer::PluginConfiguration, 0, usize::MAX)
            .map_err(|_| "the plugin configuration could not be read".to_owned())?;
        if json.is_empty() {
            return Err("configuration: is empty; give the plugin a `configuration`".to_owned());
        }
        let config = Config::parse(&json).map_err(|error| error.to_string())?;
        if let Some(origin) = &config.origin {
            let credential = origin.credential.clone().or_else(host::credential_from_environment).ok_or_else(|| {
                "origin.credential: is missing, and the environment variable TOLLGATE_CREDENTIAL is not set".to_owned()
            })?;
            // The configured one was checked; one from a mounted file often ends with a newline.
            if !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err("origin.credential: TOLLGATE_CREDENTIAL must be visible ASCII".to_owned());
            }
            self.vm.credential.replace(Secret(credential));
        }
        let seed = host::random().ok_or_else(|| "the host has no source of randomness".to_owned())?;
        let engine = Engine::new(config, HostCrypto::default(), ProcessData, seed);
        for notice in engine.notices() {
            host::log(Level::Warn, &format!("tollgate: {notice}"));
        }
        self.vm.engine.replace(Some(engine));
        host::set_tick_period(URGENT_TICK_MILLIS).map_err(|_| "the host has no timer".to_owned())
    }
}

impl Context for Root {
    fn on_http_call_response(
        &mut self,
        token: u32,
        num_headers: usize,
        body_size: usize,
        _num_trailers: usize,
    ) {
        #[cfg(feature = "probe")]
        let _timed = self.vm.timed();
        let Some(call) = self.vm.calls.borrow_mut().remove(&token) else { return };
        // No headers: the call failed or timed out, and there is no map to read.
        let body = CallBody { size: body_size };
        let outcome = match response_status(num_headers) {
            Some(status) => Ok(Reply { status, body: Body::AtHost(&body) }),
            None => Err(CallFailure::NoAnswer),
        };
        self.vm.answer(&call, outcome);
        self.vm.make_due_calls();
        self.vm.retry_waiting();
        self.vm.hurry_if_busy();
        // Retrying made requests the effective context; the dispatcher goes on with ours.
        let _ = host::set_effective_context(self.context);
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _plugin_configuration_size: usize) -> bool {
        match self.configure() {
            Ok(()) => true,
            Err(message) => {
                host::log(Level::Error, &format!("tollgate: configuration refused: {message}"));
                false
            }
        }
    }

    fn on_tick(&mut self) {
        #[cfg(feature = "probe")]
        let _timed = self.vm.timed();
        self.vm.ticked.set(clocks());
        self.vm.tick();
        self.vm.set_tick();
        self.vm.make_due_calls();
        self.vm.retry_overdue();
        self.vm.export_metrics();
        let _ = host::set_effective_context(self.context);
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http::new(context_id, Rc::clone(&self.vm))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Vm {
    pub(super) fn now(&self) -> Now {
        // One host call for each request: the date is that of the latest tick, moved on by the monotonic clock.
        let monotonic = host::monotonic();
        let ticked = self.ticked.get();
        let wall = UnixMillis(ticked.wall.0.saturating_add(monotonic.since(ticked.monotonic)));
        let now = Now { wall, monotonic };
        #[cfg(feature = "probe")]
        let now = super::probe::shifted(now);
        now
    }

    pub(super) fn check(&self, request: &RequestView<'_>, patience: Patience) -> Option<Decision> {
        let now = self.now();
        let decision = self.engine.borrow_mut().as_mut()?.check(request, patience, now);
        if let Decision::Refuse(refusal) = &decision {
            host::log(Level::Debug, &format!("tollgate: refused: {}", refusal.denial.reason()));
        }
        Some(decision)
    }

    pub(super) fn patience(&self) -> Patience {
        if self.waiting.borrow().len() < WAITING_MAX { Patience::MayWait } else { Patience::MustDecide }
    }

    /// Keeps what an admitted request's response needs, or answers one that could not be changed.
    pub(super) fn remember(&self, context: u32, admitted: Result<Vec<ResponseHeader>, Refusal>) -> Action {
        match admitted {
            Ok(respond) => {
                if !respond.is_empty() {
                    self.responses.borrow_mut().insert(context, respond);
                }
                Action::Continue
            }
            Err(refusal) => http::refuse(&refusal),
        }
    }

    pub(super) fn recall(&self, context: u32) -> Vec<ResponseHeader> {
        self.responses.borrow_mut().remove(&context).unwrap_or_default()
    }

    pub(super) fn wait(&self, context: u32) {
        self.waiting.borrow_mut().push(Waiting { context, since: self.now().monotonic });
        self.hurry(URGENT_TICK_MILLIS);
    }

    pub(super) fn forget(&self, context: u32) {
        self.responses.borrow_mut().remove(&context);
        self.waiting.borrow_mut().retain(|waiting| waiting.context != context);
    }

    pub(super) fn owned_among(&self, names: &[&[u8]]) -> Vec<Vec<u8>> {
        self.engine.borrow().as_ref().map(|engine| engine.strip_trailers(names)).unwrap_or_default()
    }

    /// Measures until it is dropped.
    #[cfg(feature = "probe")]
    fn timed(&self) -> Timed<'_> {
        Timed { vm: self, began: host::monotonic_nanoseconds() }
    }

    #[cfg(feature = "probe")]
    pub(super) fn seize_lead(&self) -> bool {
        self.engine.borrow().as_ref().is_some_and(Engine::seize_lead)
    }

    /// How often this VM was woken by its timer.
    #[cfg(feature = "probe")]
    pub(super) fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    /// The longest step since this was last asked, in nanoseconds.
    #[cfg(feature = "probe")]
    pub(super) fn take_slowest(&self) -> u64 {
        self.slowest_nanoseconds.take()
    }

    /// The time that all its steps have taken, in nanoseconds.
    #[cfg(feature = "probe")]
    pub(super) fn stepped(&self) -> u64 {
        self.stepped_nanoseconds.get()
    }

    #[cfg(feature = "probe")]
    pub(super) fn with_engine<T>(&self, read: impl FnOnce(&FilterEngine) -> T) -> Option<T> {
        self.engine.borrow().as_ref().map(read)
    }

    fn tick(&self) {
        #[cfg(feature = "probe")]
        self.ticks.set(self.ticks.get() + 1);
        let now = self.now();
        let ticked = self.engine.borrow_mut().as_mut().map_or(Ok(()), |engine| engine.tick(now));
        self.log_fault(BOARD, ticked.err());
    }

    /// Comes again when the engine wants it. Only ever called in a tick.
    fn set_tick(&self) {
        let millis = self.engine.borrow().as_ref().map(Engine::next_tick_millis);
        if let Some(millis) = millis.filter(|millis| *millis != self.period.get()) {
            self.set_period(millis);
        }
    }

    fn hurry_if_busy(&self) {
        if let Some(millis) = self.engine.borrow().as_ref().map(Engine::next_tick_millis) {
            self.hurry(millis);
        }
    }

    /// Comes again after this time at the latest. The host begins to count anew whenever it is told a period, so it is told a
    /// shorter one only: or calls that end quickly one after another would put the tick off for ever.
    fn hurry(&self, millis: u32) {
        if millis < self.period.get() {
            self.set_period(millis);
        }
    }

    fn set_period(&self, millis: u32) {
        if host::set_tick_period(millis).is_ok() {
            self.period.set(millis);
        }
    }

    fn answer(&self, UnderWay { id, cluster }: &UnderWay, outcome: Result<Reply<'_>, CallFailure>) {
        let now = self.now();
        let answered = self.engine.borrow_mut().as_mut().map(|engine| engine.answer(*id, outcome, now));
        if let Some(answered) = answered {
            self.log_fault(&format!("cluster `{cluster}`"), answered.err());
        }
    }

    /// An outage is worth one line when it begins and one when it ends, not one for each attempt.
    fn log_fault(&self, of: &str, fault: Option<AnswerFault>) {
        let mut faults = self.faults.borrow_mut();
        let known = faults.get(of).copied();
        match fault {
            Some(fault) if known != Some(fault) => {
                faults.insert(of.to_owned(), fault);
                host::log(Level::Warn, &format!("tollgate: {of}: {fault}"));
            }
            None if known.is_some() => {
                faults.remove(of);
                host::log(Level::Info, &format!("tollgate: {of}: well again"));
            }
            Some(_) | None => {}
        }
    }

    /// Makes every call that is due. Only ever called with the root as the context, so that the answers come to it.
    fn make_due_calls(&self) {
        loop {
            let now = self.now();
            let due = self.engine.borrow_mut().as_mut().and_then(|engine| engine.due(now));
            let Some(call) = due else { return };
            match self.dispatch(&call) {
                Ok(token) => {
                    self.calls.borrow_mut().insert(token, UnderWay { id: call.id, cluster: call.cluster });
                }
                Err(failure) => self.answer(&UnderWay { id: call.id, cluster: call.cluster }, Err(failure)),
            }
        }
    }

    fn dispatch(&self, call: &Call) -> Result<u32, CallFailure> {
        let authorization = format!("Bearer {}", self.credential.borrow().0);
        let mut headers = vec![
            (":method", call.method),
            (":path", call.path.as_str()),
            (":authority", call.authority.as_str()),
            ("user-agent", concat!("tollgate-filter/", env!("CARGO_PKG_VERSION"))),
        ];
        if call.kind.takes_credential() {
            headers.push(("authorization", authorization.as_str()));
        }
        headers.extend(call.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let body = (!call.body.is_empty()).then_some(call.body.as_slice());
        let timeout = Duration::from_millis(call.timeout_millis);
        // Envoy says `BadArgument` when it has no such cluster, and `InternalFailure` when it could not send.
        dispatch_http_call(&call.cluster, headers, body, Vec::new(), timeout).map_err(|status| {
            if status == Status::BadArgument { CallFailure::Unroutable } else { CallFailure::NoAnswer }
        })
    }

    /// Asks again about every request that waits.
    fn retry_waiting(&self) {
        self.retry(|_| Patience::StillWaiting);
    }

    /// Ends the wait of requests that waited long enough.
    fn retry_overdue(&self) {
        let now = self.now().monotonic;
        let overdue = |waiting: Waiting| now.since(waiting.since) >= WAIT_MILLIS;
        if self.waiting.borrow().iter().any(|waiting| overdue(*waiting)) {
            self.retry(
                |waiting| if overdue(waiting) { Patience::MustDecide } else { Patience::StillWaiting },
            );
        }
    }

    fn retry(&self, patience: impl Fn(Waiting) -> Patience) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for request in waiting {
            // A request that ended meanwhile has no context any more.
            if host::set_effective_context(request.context).is_err() {
                continue;
            }
            match http::decide(self, patience(request)) {
                Some(Decision::Wait) => self.waiting.borrow_mut().push(request),
                Some(Decision::Admit(admission)) => self.resume(request.context, admission),
                Some(Decision::Refuse(refusal)) => drop(http::refuse(&refusal)),
                None => drop(http::refuse(&http::closed())),
            }
        }
        if !self.waiting.borrow().is_empty() {
            self.hurry(URGENT_TICK_MILLIS);
        }
    }

    fn resume(&self, context: u32, admission: Admission) {
        if self.remember(context, http::admit(admission)) == Action::Continue {
            // Fails only if the stream has ended, and then there is nothing to go on with.
            let _ = host::continue_request();
        }
    }

    fn export_metrics(&self) {
        let now = self.now();
        if now.monotonic.since(self.exported_at.get()) < EXPORT_MILLIS {
            return;
        }
        self.exported_at.set(now.monotonic);
        let Some(metrics) = self.engine.borrow().as_ref().map(|engine| engine.metrics(now)) else { return };
        self.metrics.borrow_mut().export(&metrics);
    }
}

#[cfg(feature = "probe")]
struct Timed<'v> {
    vm: &'v Vm,
    began: u64,
}

#[cfg(feature = "probe")]
impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let took = host::monotonic_nanoseconds().saturating_sub(self.began);
        self.vm.slowest_nanoseconds.set(self.vm.slowest_nanoseconds.get().max(took));
        self.vm.stepped_nanoseconds.set(self.vm.stepped_nanoseconds.get() + took);
    }
}

impl Exported {
    fn export(&mut self, metrics: &Metrics) {
        for (outcome, reason, count) in metrics.requests() {
            // The tags are taken out of the name by the `stats_tags` of the bootstrap.
            self.count(format!("tollgate_requests_total.outcome.{outcome}.reason.{reason}"), count);
        }
        for (counter, count) in metrics.counters() {
            self.count(counter.name().to_owned(), count);
        }
        for (gauge, value) in metrics.gauges() {
            if let Some(id) = self.id(MetricKind::Gauge, gauge.name()) {
                let _ = host::record_metric(id, value);
            }
        }
    }

    fn count(&mut self, name: String, count: u64) {
        let before = self.counts.get(&name).copied().unwrap_or_default();
        if count == before {
            return;
        }
        if let Some(id) = self.id(MetricKind::Counter, &name)
            && host::increment_metric(id, count.saturating_sub(before)).is_ok()
        {
            self.counts.insert(name, count);
        }
    }

    fn id(&mut self, kind: MetricKind, name: &str) -> Option<u32> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        let id = host::define_metric(kind, name).ok()?;
        self.ids.insert(name.to_owned(), id);
        Some(id)
    }
}

fn clocks() -> Now {
    Now { wall: host::date(), monotonic: host::monotonic() }
}

fn response_status(num_headers: usize) -> Option<u16> {
    if num_headers == 0 {
        return None;
    }
    let map = host::header_map(Map::CallResponseHeaders).ok()?;
    let headers = host::pairs(&map)?;
    let (_, status) = headers.iter().find(|(name, _)| *name == b":status")?;
    std::str::from_utf8(status).ok()?.parse().ok()
}

/// The body of the answer that the host is telling of.
#[derive(Debug)]
struct CallBody {
    size: usize,
}

impl HostBody for CallBody {
    fn size(&self) -> usize {
        self.size
    }

    fn read(&self, start: usize, size: usize) -> Option<Vec<u8>> {
        let left = self.size.saturating_sub(start);
        host::buffer(Buffer::CallResponseBody, start, size.min(left)).ok()
    }
}
