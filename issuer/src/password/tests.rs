//! What a password may be.

use proptest::prelude::*;

use super::*;

fn password(text: &str) -> Result<Password, PasswordLength> {
    Password::new(Zeroizing::new(text.to_owned()))
}

fn set(text: &str) -> Result<NewPassword, PasswordRefused> {
    let context = PasswordContext { username: "alice", issuer: "https://id.example.org" };
    NewPassword::new(password(text)?, &context)
}

#[test]
fn a_password_is_8_to_1024_bytes_long_before_and_after_normalising() {
    for (text, fits) in [
        ("1234567", false),
        ("12345678", true),
        ("\u{e9}\u{e9}\u{e9}\u{e9}", true),
        // 9 bytes typed, 6 in form C.
        ("e\u{301}e\u{301}e\u{301}", false),
    ] {
        assert_eq!(password(text).is_ok(), fits, "{text}");
    }
    assert!(password(&"x".repeat(1024)).is_ok());
    assert!(password(&"x".repeat(1025)).is_err());
    // Form C is three times as long here.
    assert!(password(&"\u{1d160}".repeat(200)).is_err());
}

#[test]
fn a_password_that_is_set_is_long_and_neither_common_nor_known() {
    assert!(set("correct horse").is_ok());
    for (text, rule) in [
        ("short", PasswordRefused::Length),
        // 8 bytes, 4 characters.
        ("\u{e9}\u{e8}\u{ea}\u{eb}", PasswordRefused::Length),
        ("PASSWORD", PasswordRefused::Common),
        ("Alice in chains", PasswordRefused::ContainsContext),
        ("tollgate!!", PasswordRefused::ContainsContext),
        ("an example of 1", PasswordRefused::ContainsContext),
    ] {
        assert_eq!(set(text).unwrap_err(), rule, "{text}");
        assert!(!rule.to_string().contains(text));
    }
}

#[test]
fn what_may_not_be_set_can_still_be_typed() {
    assert!(password("password").is_ok());
}

#[test]
fn a_password_prints_nothing_of_itself() {
    assert_eq!(format!("{:?}", set("correct horse").unwrap()), "NewPassword(Password(…))");
    assert_eq!(format!("{:?}", TypedPassword(Zeroizing::new("x".to_owned()))), "TypedPassword(…)");
}

proptest! {
    /// A password is the same in every normalisation of what is canonically the same.
    #[test]
    fn how_it_was_typed_makes_no_difference(text in "[a-z\u{c0}-\u{17f}\u{1e00}-\u{1eff}]{8,40}") {
        let decomposed: String = text.nfd().collect();
        let (one, other) = (password(&text).unwrap(), password(&decomposed).unwrap());
        prop_assert_eq!(one.as_str(), other.as_str());
    }
}
