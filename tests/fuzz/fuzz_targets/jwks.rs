//! No bytes make the key set reader panic, and what it takes is neither empty nor larger than allowed.
#![no_main]

use tollgate_shared::token::{KeySet, KEYS_MAX};

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Ok((keys, _)) = KeySet::from_jwks(json) {
        assert!((1..=KEYS_MAX).contains(&keys.len()));
    }
});
