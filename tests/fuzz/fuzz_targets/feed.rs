//! No bytes make the feed decoder panic, before or after the signature: half of the runs sign what they try. What follows the
//! envelope is never signed.
#![no_main]

use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::SigningKey;
use tollgate_shared::wire::feed::{TrustAnchor, apply_body, seal_payload};

libfuzzer_sys::fuzz_target!(|input: (bool, &[u8], &[u8])| {
    let (signed, bytes, pieces) = input;
    let key = SigningKey::from_seed(&[3; 32]);
    let anchor = TrustAnchor::new(&key.public_bytes()).expect("a key of ours");
    let sealed = signed.then(|| seal_payload(bytes.to_vec(), &key)).flatten();
    let body = [sealed.as_deref().unwrap_or(bytes), pieces].concat();
    // Twice: what is a snapshot becomes the state that the same message is then applied to again.
    let mut state = None;
    for _ in 0..2 {
        let _ = apply_body(&anchor, &body, &mut state, UnixSeconds(1));
    }
});
