//! The proxy-wasm adapter: turns what Envoy hands over into questions to the engine, and its answers into host calls.
//!
//! Nothing here decides. Every host call's status is handled (the SDK's own wrappers panic on one they do not expect),
//! because a trap costs every request that this VM holds.

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
