//! Hashes that others made, and texts that are none.

use std::io::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// From the specifications, the crates' own tests, and tools that share no code with them (OpenSSL, glibc, Python).
const KNOWN: &[(&str, &str, &str)] = &[
    // argon2 0.6 is tested against the reference implementation's vectors below.
    ("argon2", "password", "$argon2i$m=256,t=2,p=1$c29tZXNhbHQ$/U3YPXYsSb3q9XxHvc0MLxur+GP960kN9j7emXX8zwY"),
    // RFC 6070, and RFC 7914 section 11.
    ("pbkdf2", "password", "$pbkdf2$4096$c2FsdA$SwB5AbdlSJq+rUnZJvch0GWkKcE"),
    (
        "pbkdf2",
        "Password",
        "$pbkdf2-sha256$80000$TmFDbA$TdzY9guYviGDDO5e8icB+WQaRBjQTAQUrv8Ih2s0q1ah1CWhIlgzVJrbhBtRybMXaicr3ruh0HhHj2Kzl/M8jQ",
    ),
    // passlib.
    ("pbkdf2", "password", "$pbkdf2-sha256$8000$XAuBMIYQQogxRg$tRRlz8hYn63B9LYiCd6PRo6FMiunY9ozmMMI3srxeRE"),
    (
        "pbkdf2",
        "abcdefghijklmnop",
        "$pbkdf2-sha512$25000$O4fwPmdMyRmDUIrx/h9jTA$Xlp267ZwEbG4aOpN3Bve/ATo3rFA7WH8iMdS16Xbe9rc6P5welk1yiXEMPy7.BFp0qsncipHumaW1trCWVvq/A",
    ),
    (
        "scrypt",
        "password",
        "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
    ),
    // PHC, as the pbkdf2 crate writes it.
    (
        "pbkdf2",
        "passwordPASSWORDpassword",
        "$pbkdf2-sha256$i=4096,l=40$c2FsdFNBTFRzYWx0U0FMVHNhbHRTQUxUc2FsdFNBTFRzYWx0$NIyJ28vTKy8y2BS4EW6EzysXNH68GAAYHE4qH7jdU+HGNVGMfaxH6Q",
    ),
    (
        "pbkdf2",
        "pässword",
        "$pbkdf2-sha512$i=1000,l=32$c2l4dGVlbiBieXRlIHNhbA$2MQYwqun5xefF+wOGlcJAGQdExHPGgUVdWf+UNlr+t8",
    ),
    ("pbkdf2", "correct horse", "s4lt:54622756d22424ab853fc558df943bd14003498d1f0683f956983b27005f5334"),
    ("pbkdf2", "correct horse", "a:b é:5E2D18A1d15bf5f47c249daf9688772340bb4b4ea8c9c9330876640c9d360802"),
    // RFC 7914 section 12.
    (
        "scrypt",
        "pleaseletmein",
        "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw",
    ),
    ("bcrypt", "password", "$2a$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96"),
    ("bcrypt", "correctbatteryhorsestapler", "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie"),
    ("bcrypt", "correctbatteryhorsestapler", "$2y$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie"),
    // The SHA-crypt specification.
    ("sha-crypt", "Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    (
        "sha-crypt",
        "Hello world!",
        "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
    ),
    (
        "sha-crypt",
        "Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "sha-crypt",
        "Hello world!",
        "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
    ),
    // glibc and OpenSSL.
    (
        "sha-crypt",
        "pässword",
        "$6$rounds=1000$ab.d$5NTf8DnoeEma4YObWeb7kMbOsa5W7T/2WLqi75qQX1im/dSBhMSFIIBaH8RfYRs53qtFAdHVRAdoz0oWyBHlb.",
    ),
    ("sha-crypt", "correct horse", "$5$q$Fm1Fg/6/D4.2uAaWgjRyr4DXPj408PnW8U2B8oxXMv."),
];

fn check(hash: &str, password: &str) -> Verdict {
    let mut memory = HashMemory::keeping(0);
    StoredHash::parse(hash)
        .unwrap_or_else(|error| panic!("{hash}: {error}"))
        .check(password.as_bytes(), &mut memory)
}

#[test]
fn hashes_that_others_made_fit_their_password_and_no_other() {
    for (scheme, password, hash) in KNOWN {
        let stored = StoredHash::parse(hash).unwrap_or_else(|error| panic!("{hash}: {error}"));
        assert_eq!((stored.scheme_name(), stored.as_str()), (*scheme, *hash));
        assert_eq!(check(hash, password), Verdict::Right, "{hash}");
        assert_eq!(check(hash, &format!("{password}.")), Verdict::Wrong, "{hash}");
        assert_eq!(check(hash, &password.to_uppercase()), Verdict::Wrong, "{hash}");
    }
}

#[test]
fn a_hash_prints_its_scheme_and_nothing_of_itself() {
    for (scheme, _, hash) in KNOWN {
        assert_eq!(format!("{:?}", StoredHash::parse(hash).unwrap()), format!("StoredHash({scheme})"));
    }
}

#[test]
fn bcrypt_knows_the_first_72_bytes_of_a_password() {
    // Made by Python's bcrypt of 100 times x.
    let hash = "$2a$05$......................YgIDy4hFBdVlc/6LHnD9mX488r9cLd2";
    assert_eq!(check(hash, &"x".repeat(100)), Verdict::Right);
    assert_eq!(check(hash, &"x".repeat(72)), Verdict::Right);
    assert_eq!(check(hash, &"x".repeat(71)), Verdict::Wrong);
}

#[test]
fn texts_that_are_no_hash_or_cost_too_much_are_refused_for_the_right_reason() {
    use StoredHashError::{Cost, Form, Length, Parameter, Scheme};
    let tag = "A".repeat(43);
    let hex = "0".repeat(64);
    let bcrypt = "UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";
    let salt = "c29tZXNhbHQ";
    let cases = [
        ("", Scheme),
        ("password", Scheme),
        ("$", Scheme),
        ("$1$salt$hash", Scheme),
        ("$7$CU..../....Mq4$x", Scheme),
        (&format!("$2x$04${bcrypt}"), Scheme),
        (&"x".repeat(STORED_BYTES_MAX + 1), Length),
        // argon2
        (&format!("$argon2id$v=19$m=256,t=2,p=1${salt}"), Form),
        (&format!("$argon2id$v=19$m=256,t=2,p=1$${tag}"), Form),
        (&format!("$argon2id$v=19$m=256,t=2,p=1${salt}${tag}$"), Form),
        (&format!("$argon2id$v=18$m=256,t=2,p=1${salt}${tag}"), Parameter),
        (&format!("$argon2id$v=19$m=256,t=2${salt}${tag}"), Parameter),
        (&format!("$argon2id$v=19$m=256,t=2,p=1,m=8${salt}${tag}"), Parameter),
        (&format!("$argon2id$v=19$m=256,t=2,p=1,data=AAAA${salt}${tag}"), Parameter),
        (&format!("$argon2id$v=19$m=256,t=0,p=1${salt}${tag}"), Parameter),
        (&format!("$argon2id$v=19$m=256,t=1,p=0${salt}${tag}"), Parameter),
        (&format!("$argon2id$v=19$m=256,t=1,p=33${salt}${tag}"), Parameter),
        (&format!("$argon2id$v=19$m=256,t=1,p=4294967295${salt}${tag}"), Parameter),
        (&format!("$argon2id$v=19$m=262145,t=1,p=1${salt}${tag}"), Cost),
        (&format!("$argon2id$v=19$m=262144,t=9,p=1${salt}${tag}"), Cost),
        (&format!("$argon2id$v=19$m=8,t=4294967295,p=1${salt}${tag}"), Cost),
        // PBKDF2
        (&format!("$pbkdf2-sha256$i=1000,l=31${salt}${tag}"), Parameter),
        (&format!("$pbkdf2-sha256$l=32${salt}${tag}"), Parameter),
        (&format!("$pbkdf2-sha256$i=2000001${salt}${tag}"), Cost),
        (&format!("$pbkdf2-sha256$2000001${salt}${tag}"), Cost),
        (&format!("$pbkdf2$1000001${salt}${tag}"), Cost),
        (&format!("$pbkdf2-sha256$99999999999${salt}${tag}"), Cost),
        (&format!("$pbkdf2-sha256$0${salt}${tag}"), Parameter),
        (&format!("$pbkdf2-sha256$+1${salt}${tag}"), Parameter),
        (&format!("$pbkdf2-sha256$01${salt}${tag}"), Parameter),
        (&format!("$pbkdf2-sha256$1000${salt}$AAAA"), Form),
        (&format!("$pbkdf2-sha256$1000$$${tag}"), Form),
        (&format!("$pbkdf2-sha256$1000${salt}"), Form),
        (&format!(":{hex}"), Form),
        (&format!("salt:{hex}0"), Form),
        (&format!("salt:+{}", &hex[1..]), Form),
        (&format!("{}:{hex}", "s".repeat(257)), Form),
        ("salt:", Form),
        // bcrypt
        (&format!("$2a$03${bcrypt}"), Parameter),
        (&format!("$2a$16${bcrypt}"), Cost),
        (&format!("$2a$31${bcrypt}"), Cost),
        (&format!("$2a$32${bcrypt}"), Parameter),
        (&format!("$2a$+4${bcrypt}"), Form),
        (&format!("$2a$04${bcrypt}6"), Form),
        (&format!("$2a$04${}", "é".repeat(26)), Form),
        // scrypt
        (&format!("$scrypt$ln=0,r=8,p=1${salt}${tag}"), Parameter),
        (&format!("$scrypt$ln=64,r=8,p=1${salt}${tag}"), Parameter),
        (&format!("$scrypt$ln=14,r=0,p=1${salt}${tag}"), Parameter),
        (&format!("$scrypt$ln=14,r=8${salt}${tag}"), Parameter),
        (&format!("$scrypt$ln=19,r=8,p=1${salt}${tag}"), Cost),
        (&format!("$scrypt$ln=18,r=8,p=3${salt}${tag}"), Cost),
        (&format!("$scrypt$ln=63,r=4294967295,p=4294967295${salt}${tag}"), Cost),
        (&format!("$scrypt$ln=1,r=65536,p=65536${salt}${tag}"), Cost),
        // SHA-crypt
        (&format!("$5$rounds=999$salt${tag}"), Parameter),
        (&format!("$5$rounds=$salt${tag}"), Parameter),
        (&format!("$5$rounds=1000001$salt${tag}"), Cost),
        (&format!("$5$rounds=5000${tag}"), Form),
        (&format!("$5$$${tag}"), Form),
        (&format!("$5$seventeen-letters${tag}"), Form),
        (&format!("$6$salt${tag}"), Form),
        (&format!("$5$salt${}_", &tag[1..]), Form),
    ];
    for (text, expected) in cases {
        assert_eq!(StoredHash::parse(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn what_is_dearest_is_still_accepted() {
    let tag = "A".repeat(43);
    let bcrypt = "UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";
    let cases = [
        (format!("$argon2id$v=19$m=262144,t=8,p=16$c29tZXNhbHQ${tag}"), 262_144),
        (format!("$argon2id$v=19$m=20000,t=8,p=16$c29tZXNhbHQ${tag}"), 20_000),
        (format!("$argon2id$v=19$m=19456,t=8,p=16$c29tZXNhbHQ${tag}"), 0),
        (format!("$pbkdf2-sha256$2000000$c2FsdA${tag}"), 0),
        (format!("$2b$15${bcrypt}"), 0),
        (format!("$scrypt$ln=17,r=8,p=4$c29tZXNhbHQ${tag}"), 131_076),
        (format!("$5$rounds=1000000$salt${tag}"), 0),
    ];
    for (text, extra_kib) in cases {
        assert_eq!(StoredHash::parse(&text).unwrap().extra_kib(19_456), extra_kib, "{text}");
    }
}

fn argon2_cases() -> Option<serde_json::Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora/argon2-kats/cases.json");
    let Ok(bytes) = std::fs::read(path) else {
        // Past the capture of output: that something did not run is to be seen.
        std::io::stderr().write_all(b"NOT RUN: the Argon2 vectors are not in ../shared/corpora\n").unwrap();
        return None;
    };
    Some(serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn the_reference_implementations_hashes_are_right() {
    let Some(cases) = argon2_cases() else { return };
    let mut checked = 0;
    for case in cases["vectors"].as_array().unwrap() {
        let (hash, password) = (case["encoded"].as_str().unwrap(), case["password"].as_str().unwrap());
        if case["m_kib"].as_u64().unwrap() > u64::from(MEMORY_KIB_MAX) {
            assert_eq!(StoredHash::parse(hash).unwrap_err(), StoredHashError::Cost);
            continue;
        }
        assert_eq!(check(hash, password), Verdict::Right, "{hash}");
        checked += 1;
    }
    assert!(checked >= 20, "{checked}");
    for case in cases["malformed_phc_strings_modelled_on_test_c"].as_array().unwrap() {
        let hash = case["encoded"].as_str().unwrap();
        assert!(StoredHash::parse(hash).is_err(), "{hash}");
    }
}

proptest! {
    /// Nothing that is read panics or repeats itself in an error.
    #[test]
    fn any_text_is_a_hash_or_an_error(
        text in r"(\$?(argon2id|pbkdf2-sha256|pbkdf2|scrypt|2b|5|6)?)([$=,:.a-z0-9A-Z/+é]{0,90})",
    ) {
        if let Err(error) = StoredHash::parse(&text) {
            prop_assert!(text.len() < 8 || !error.to_string().contains(&text));
        }
    }

    /// One character changed makes an error or a hash of something else, and never a panic.
    #[test]
    fn a_hash_with_a_character_changed_is_not_taken_for_the_same(
        which in 0..KNOWN.len(), place in 0usize..200, with in "[ -~é]",
    ) {
        let (_, _, hash) = KNOWN[which];
        let mut characters: Vec<char> = hash.chars().collect();
        let place = place % characters.len();
        characters[place] = with.chars().next().unwrap();
        let changed: String = characters.into_iter().collect();
        if let Ok(stored) = StoredHash::parse(&changed) {
            prop_assert_eq!(stored.as_str(), changed);
        }
    }
}
