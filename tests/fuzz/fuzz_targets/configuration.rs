//! No bytes make the configuration parser panic, and every error names a key.
#![no_main]

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Err(error) = tollgate_filter::config::Config::parse(json) {
        assert!(!error.path.is_empty() && !error.message.is_empty());
    }
});
