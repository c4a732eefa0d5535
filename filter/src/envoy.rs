//! The proxy-wasm adapter: turns what Envoy hands over into questions to the engine, and its answers into host calls.
//!
//! Nothing here decides. Host calls go by our own `host` module, which handles every status, because the SDK's wrappers
//! panic on one they do not expect and a trap costs every request that this VM holds. The one exception is the HTTP call,
//! whose answer the SDK's dispatcher has to know of.

mod crypto;
mod host;
mod http;
#[cfg(feature = "probe")]
mod probe;
mod root;

use proxy_wasm::traits::RootContext;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|context_id| -> Box<dyn RootContext> { Box::new(root::Root::new(context_id)) });
}}
