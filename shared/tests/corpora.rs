//! Every document of the JSON test suite, as the header and as the payload of a token: what is not JSON is refused, and
//! nothing panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::PathBuf;

use base64ct::{Base64UrlUnpadded, Encoding};
use tollgate_shared::token::{JsonValue, UntrustedToken};

fn documents() -> Vec<(String, Vec<u8>)> {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/json-test-suite/test_parsing");
    let Ok(entries) = std::fs::read_dir(folder) else {
        // Past the capture of output: that something did not run is to be seen.
        std::io::stderr().write_all(b"NOT RUN: the JSON test suite is not in ../shared/corpora\n").unwrap();
        return Vec::new();
    };
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap())
    };
    entries.map(read).collect()
}

#[test]
fn what_is_not_json_is_refused_and_what_is_json_is_no_token() {
    for (name, bytes) in documents() {
        let parsed = JsonValue::parse(&bytes);
        if name.starts_with("n_") {
            assert!(parsed.is_err(), "{name} was taken");
        }
        // Valid but for what we refuse beyond the grammar: members that stand twice.
        if name.starts_with("y_") {
            let twice = name.starts_with("y_object_duplicated_key");
            assert_eq!(parsed.is_err(), twice, "{name}: {parsed:?}");
        }
        let odd = Base64UrlUnpadded::encode_string(&bytes);
        let header = Base64UrlUnpadded::encode_string(br#"{"alg":"EdDSA","kid":"k"}"#);
        for token in [format!("{odd}.e30.AA"), format!("{header}.{odd}.AA")] {
            let parsed = UntrustedToken::parse(token.as_bytes());
            assert!(parsed.is_err() || !name.starts_with("n_"), "{name} was taken in a token");
        }
    }
}
