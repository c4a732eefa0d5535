//! The calls into Envoy that the adapter makes, each with its status as a value: none panics.
//!
//! The interface is proxy-wasm ABI 0.2.1. Memory that the host returns was allocated through the module's own
//! `proxy_on_memory_allocate`, so it is taken over as a `Vec` of exactly that size.

#![expect(
    unsafe_code,
    reason = "host functions are foreign, and what they return has to be taken over by pointer"
)]

use std::ptr::null_mut;
use std::time::{SystemTime, UNIX_EPOCH};

use tollgate_shared::time::{Monotonic, UnixMillis};

use crate::engine::{NotWritten, SharedData, Version};

/// What a host call answered when it was not `Ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostStatus(u32);

impl HostStatus {
    pub(super) const NOT_FOUND: Self = Self(1);
}

type HostResult<T> = Result<T, HostStatus>;

/// Severity of a log line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Level {
    Debug = 1,
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// Which headers.
#[derive(Debug, Clone, Copy)]
pub(super) enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
    CallResponseHeaders = 6,
}

/// Which buffer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Buffer {
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

/// A counter or a gauge.
#[derive(Debug, Clone, Copy)]
pub(super) enum MetricKind {
    Counter = 0,
    Gauge = 1,
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_get_shared_data(
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
        version: u32,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        argument: *const u8,
        argument_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: i32, precision: i64, nanoseconds: i32) -> i32;
}

/// WASI's monotonic clock, which in Envoy is the process's: every VM reads the same.
const MONOTONIC_CLOCK: i32 = 1;

fn checked(status: u32) -> HostResult<()> {
    if status == 0 { Ok(()) } else { Err(HostStatus(status)) }
}

/// Runs a host function that returns memory.
fn returned(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> HostResult<Vec<u8>> {
    let (mut data, mut size): (*mut u8, usize) = (null_mut(), 0);
    checked(call(&raw mut data, &raw mut size))?;
    if data.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: the host filled in a block that `proxy_on_memory_allocate` of this module returned, whose capacity and
    // length are `size`, and gave it to us.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// The host's date: WASI's real-time clock.
#[expect(clippy::disallowed_methods, reason = "this is where the adapter reads the clocks")]
pub(super) fn date() -> UnixMillis {
    let date =
        SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_millis()).unwrap_or_default();
    UnixMillis(u64::try_from(date).unwrap_or(u64::MAX))
}

/// The process's monotonic clock.
pub(super) fn monotonic() -> Monotonic {
    Monotonic(monotonic_nanoseconds() / 1_000_000)
}

/// The same in nanoseconds. The standard library's `Instant` would tell differences only, and VMs compare readings.
pub(super) fn monotonic_nanoseconds() -> u64 {
    let mut nanoseconds = 0u64;
    // SAFETY: the pointer is to a local that is valid for the call; addresses have 32 bits here. Should the clock fail, it
    // stands still: what is timed by it then waits, and nothing becomes younger.
    let _ = unsafe { clock_time_get(MONOTONIC_CLOCK, 1, (&raw mut nanoseconds) as usize as i32) };
    nanoseconds
}

/// What the VMs of this process share.
#[derive(Debug, Default)]
pub(super) struct ProcessData;

impl SharedData for ProcessData {
    fn read(&self, name: &str) -> Option<(Vec<u8>, Version)> {
        let mut version = 0;
        // SAFETY: the name is a live string, and the out-pointers are valid for the call.
        let value = returned(|data, size| unsafe {
            proxy_get_shared_data(name.as_ptr(), name.len(), data, size, &raw mut version)
        });
        value.ok().map(|value| (value, Version(version)))
    }

    fn write(&self, name: &str, value: &[u8], version: Option<Version>) -> Result<(), NotWritten> {
        // 0 is "whatever is there"; the host never gives it to a value.
        let version = version.map_or(0, |version| version.0);
        // SAFETY: the pointers and lengths are those of live slices.
        let written = checked(unsafe {
            proxy_set_shared_data(name.as_ptr(), name.len(), value.as_ptr(), value.len(), version)
        });
        written.map_err(|_| NotWritten)
    }
}

/// A random number; `None` when the host has no source of randomness.
#[expect(clippy::disallowed_methods, reason = "this is where the adapter draws randomness")]
pub(super) fn random() -> Option<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(u128::from_le_bytes(bytes))
}

/// The credential, where the host's `environment_variables` hold it.
#[expect(clippy::disallowed_methods, reason = "this is where the adapter reads the environment")]
pub(super) fn credential_from_environment() -> Option<String> {
    std::env::var("TOLLGATE_CREDENTIAL").ok().filter(|credential| !credential.is_empty())
}

pub(super) fn log(level: Level, message: &str) {
    // SAFETY: the pointer and length are those of a live string. A log line that is lost is lost.
    let _ = unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

pub(super) fn set_tick_period(millis: u32) -> HostResult<()> {
    // SAFETY: plain numbers.
    checked(unsafe { proxy_set_tick_period_milliseconds(millis) })
}

pub(super) fn set_effective_context(context: u32) -> HostResult<()> {
    // SAFETY: plain numbers.
    checked(unsafe { proxy_set_effective_context(context) })
}

pub(super) fn continue_request() -> HostResult<()> {
    // SAFETY: plain numbers; 0 is the request stream.
    checked(unsafe { proxy_continue_stream(0) })
}

pub(super) fn buffer(kind: Buffer, start: usize, max: usize) -> HostResult<Vec<u8>> {
    // SAFETY: both out-pointers are valid for the call.
    returned(|data, size| unsafe { proxy_get_buffer_bytes(kind as u32, start, max, data, size) })
}

/// All headers of a map in the host's encoding; read them with [`pairs`].
pub(super) fn header_map(map: Map) -> HostResult<Vec<u8>> {
    // SAFETY: both out-pointers are valid for the call.
    returned(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

pub(super) fn remove_header(map: Map, name: &[u8]) -> HostResult<()> {
    // SAFETY: the pointer and length are those of a live slice.
    checked(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

pub(super) fn set_header(map: Map, name: &str, value: &[u8]) -> HostResult<()> {
    // SAFETY: the pointers and lengths are those of live slices.
    checked(unsafe {
        proxy_replace_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Answers the request. `details` appears in Envoy's access log as `RESPONSE_CODE_DETAILS`.
pub(super) fn send_response(
    status: u16,
    details: &str,
    headers: &[(&'static str, String)],
    body: &str,
) -> HostResult<()> {
    let headers = encode_pairs(headers);
    // SAFETY: the pointers and lengths are those of live slices; -1 is "no gRPC status".
    checked(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

pub(super) fn define_metric(kind: MetricKind, name: &str) -> HostResult<u32> {
    let mut id = 0;
    // SAFETY: the name is a live string, and `id` is valid for the call.
    checked(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

pub(super) fn increment_metric(id: u32, by: u64) -> HostResult<()> {
    // SAFETY: plain numbers.
    checked(unsafe { proxy_increment_metric(id, i64::try_from(by).unwrap_or(i64::MAX)) })
}

pub(super) fn record_metric(id: u32, value: u64) -> HostResult<()> {
    // SAFETY: plain numbers.
    checked(unsafe { proxy_record_metric(id, value) })
}

pub(super) fn call_foreign_function(name: &str, argument: &[u8]) -> HostResult<Vec<u8>> {
    // SAFETY: the pointers and lengths are those of live slices, and both out-pointers are valid for the call.
    returned(|data, size| unsafe {
        proxy_call_foreign_function(name.as_ptr(), name.len(), argument.as_ptr(), argument.len(), data, size)
    })
}

/// Reads the host's encoding of a header map: a count, then the lengths of each name and value, then each name and value
/// followed by a zero. `None` when the bytes are not that.
pub(super) fn pairs(map: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if map.is_empty() {
        return Some(Vec::new());
    }
    let number = |place: usize| -> Option<usize> {
        let bytes = map.get(place..place.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    let count = number(0)?;
    let mut lengths = 4;
    let mut place = count.checked_mul(8)?.checked_add(4)?;
    let mut pairs = Vec::with_capacity(count.min(map.len() / 8));
    for _ in 0..count {
        let (name_size, value_size) = (number(lengths)?, number(lengths + 4)?);
        lengths += 8;
        let name_end = place.checked_add(name_size)?;
        let value_start = name_end.checked_add(1)?;
        let value_end = value_start.checked_add(value_size)?;
        pairs.push((map.get(place..name_end)?, map.get(value_start..value_end)?));
        place = value_end.checked_add(1)?;
    }
    Some(pairs)
}

fn encode_pairs(headers: &[(&'static str, String)]) -> Vec<u8> {
    let number = |size: usize| u32::try_from(size).unwrap_or_default().to_le_bytes();
    let mut bytes = number(headers.len()).to_vec();
    for (name, value) in headers {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for (name, value) in headers {
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(value.as_bytes());
        bytes.push(0);
    }
    bytes
}
