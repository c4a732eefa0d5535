//! The block list and the context words.

use std::io::Write as _;
use std::path::PathBuf;

use super::*;

const ENTRIES: usize = 10_000;
const CHARACTERS_MIN: usize = 8;

#[test]
fn the_list_is_sorted_whole_and_without_repetition() {
    let (digests, rest) = COMMON.as_chunks::<8>();
    assert_eq!((digests.len(), rest.len()), (ENTRIES, 0));
    assert!(digests.is_sorted_by(|one, next| one < next));
}

#[test]
fn common_passwords_are_known_however_they_are_capitalised() {
    for common in ["password", "PassWord", "12345678", "qwertyuiop", "1QAZ2wsx", "BASEBALL"] {
        assert!(is_common(&folded(common)), "{common}");
    }
    for other in ["correct horse", "password ", "passwor", "p\u{e4}ssword", ""] {
        assert!(!is_common(&folded(other)), "{other}");
    }
}

#[test]
fn the_list_is_what_its_source_gives() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/corpora/passwords-zxcvbn/data__passwords.txt");
    let Ok(ranked) = std::fs::read_to_string(path) else {
        std::io::stderr().write_all(b"NOT RUN: the ranked passwords are not in ../shared/corpora\n").unwrap();
        return;
    };
    let passwords = ranked.lines().filter_map(|line| line.split_whitespace().next());
    let long = passwords.filter(|password| password.chars().count() >= CHARACTERS_MIN).take(ENTRIES);
    let mut digests: Vec<[u8; 8]> = long.map(|password| digest(&folded(password))).collect();
    digests.sort_unstable();
    assert!(digests.concat() == COMMON, "common.bin is not what the ranked list gives");
}

#[test]
fn what_is_known_of_the_user_is_found_in_a_password() {
    let context = |username, issuer| PasswordContext { username, issuer };
    let alice = context("Alice", "https://login.example.com:8443/base");
    for blocked in
        ["xxALICExx", "tollgate2026!", "my Example 1", "https login!", "a.example.com", "login.example.com"]
    {
        assert!(alice.is_contained(&folded(blocked)), "{blocked}");
    }
    for free in ["correct horse", "community", "al-ice-al-ice", "8443 base camps"] {
        assert!(!alice.is_contained(&folded(free)), "{free}");
    }
    let mail = context("zo\u{cb}.smith@mail.test", "http://127.0.0.1:8700");
    assert!(mail.is_contained(&folded("ZO\u{eb}.SMITH 1999")));
    assert!(mail.is_contained(&folded("for 127.0.0.1 only")));
    assert!(!mail.is_contained(&folded("smith & sons 127")));
    // Short names are in too many passwords.
    assert!(!context("bob", "http://[::1]:8700").is_contained(&folded("bobsleighs & more")));
}

#[test]
fn the_host_is_found_in_every_form_of_url() {
    let cases = [
        ("https://login.example.com", "login.example.com"),
        ("https://login.example.com:1/x/y", "login.example.com"),
        ("http://user@host:1/x", "host"),
        ("http://[fd00::1]:8700/x", "fd00::1"),
        ("bare", "bare"),
    ];
    for (issuer, host) in cases {
        assert_eq!(host_of(issuer), host);
    }
}
