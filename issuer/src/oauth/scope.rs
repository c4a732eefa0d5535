//! Decides which scopes a token gets: those asked for, if they can be had, and never one more.
//!
//! *What comes in:* text chosen by the client. *What goes out:* [`Scopes`], a subset of what its holder may have. *What an
//! attacker gains if this is wrong:* a right that nobody gave.

use std::fmt;

/// The most scopes of a holder or of a token: all of them are in every token.
pub const SCOPES_MAX: usize = 64;
/// The longest scope, in bytes.
const SCOPE_BYTES_MAX: usize = 64;

/// Scopes in the order in which they were named, none of them twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scopes(Vec<String>);

/// Why scopes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ScopeError {
    /// One has characters that no scope has, or is too long.
    #[error("scope is malformed")]
    Malformed,
    /// There are more than [`SCOPES_MAX`].
    #[error("more than {SCOPES_MAX} scopes")]
    TooMany,
    /// One is not among those that can be had.
    #[error("scope cannot be had")]
    NotHeld,
}

/// Whether this is one scope: RFC 6749 section 3.3 has the characters.
#[must_use]
pub fn is_scope_token(text: &str) -> bool {
    (1..=SCOPE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

impl Scopes {
    /// Reads scopes that are separated by spaces. More than one space between them is let pass, as it means nothing.
    ///
    /// # Errors
    /// [`ScopeError::Malformed`] or [`ScopeError::TooMany`].
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        Self::of(text.split(' ').filter(|scope| !scope.is_empty()))
    }

    fn of(names: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, ScopeError> {
        let mut scopes: Vec<String> = Vec::new();
        for scope in names {
            let scope = scope.as_ref();
            if !is_scope_token(scope) {
                return Err(ScopeError::Malformed);
            }
            if scopes.iter().any(|known| known == scope) {
                continue;
            }
            if scopes.len() >= SCOPES_MAX {
                return Err(ScopeError::TooMany);
            }
            scopes.push(scope.to_owned());
        }
        Ok(Self(scopes))
    }

    /// What is asked for out of what is held; all of it when nothing is asked for. Who holds more than fit into a token has
    /// to ask.
    ///
    /// # Errors
    /// See [`ScopeError`]. One scope that is not held refuses them all: a token with less than was asked for would fail
    /// later, where nobody knows why.
    pub fn granted(asked: Option<&str>, held: &[String]) -> Result<Self, ScopeError> {
        let Some(asked) = asked else { return Self::of(held) };
        let asked = Self::parse(asked)?;
        if asked.0.iter().all(|scope| held.contains(scope)) { Ok(asked) } else { Err(ScopeError::NotHeld) }
    }

    /// What a refresh asks for out of what was granted first; all of it when nothing is asked for (RFC 6749 section 6).
    ///
    /// # Errors
    /// See [`ScopeError`].
    pub fn narrowed(&self, asked: Option<&str>) -> Result<Self, ScopeError> {
        Self::granted(asked, &self.0)
    }

    /// Those that `held` still has: a right that was taken away is not in the next token.
    #[must_use]
    pub fn still_held(self, held: &[String]) -> Self {
        Self(self.0.into_iter().filter(|scope| held.contains(scope)).collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join(" "))
    }
}

impl From<ScopeError> for super::error::OAuthError {
    fn from(error: ScopeError) -> Self {
        match error {
            ScopeError::Malformed | ScopeError::TooMany | ScopeError::NotHeld => Self::InvalidScope,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held() -> Vec<String> {
        ["read", "write", "users:delete"].map(str::to_owned).to_vec()
    }

    #[test]
    fn only_what_is_held_is_granted() {
        let cases = [
            (None, Ok("read write users:delete")),
            (Some("write"), Ok("write")),
            (Some("write read write"), Ok("write read")),
            (Some("  write   read "), Ok("write read")),
            (Some(""), Ok("")),
            (Some("admin"), Err(ScopeError::NotHeld)),
            (Some("read admin"), Err(ScopeError::NotHeld)),
            (Some("READ"), Err(ScopeError::NotHeld)),
            (Some("read\twrite"), Err(ScopeError::Malformed)),
            (Some("read\nwrite"), Err(ScopeError::Malformed)),
            (Some("\"read\""), Err(ScopeError::Malformed)),
            (Some("re\\ad"), Err(ScopeError::Malformed)),
            (Some("réad"), Err(ScopeError::Malformed)),
            (Some("read\u{a0}write"), Err(ScopeError::Malformed)),
        ];
        for (asked, expected) in cases {
            let granted = Scopes::granted(asked, &held()).map(|scopes| scopes.to_string());
            assert_eq!(granted, expected.map(str::to_owned), "{asked:?}");
        }
    }

    #[test]
    fn number_and_length_are_bounded() {
        let names = |count| (0..count).map(|number| format!("s{number}")).collect::<Vec<_>>().join(" ");
        assert!(Scopes::parse(&names(SCOPES_MAX)).is_ok());
        assert_eq!(Scopes::parse(&names(SCOPES_MAX + 1)), Err(ScopeError::TooMany));
        assert!(Scopes::parse(&"a ".repeat(SCOPES_MAX + 1)).is_ok());
        assert!(Scopes::parse(&"a".repeat(SCOPE_BYTES_MAX)).is_ok());
        assert_eq!(Scopes::parse(&"a".repeat(SCOPE_BYTES_MAX + 1)), Err(ScopeError::Malformed));
    }

    #[test]
    fn what_was_granted_can_be_read_again_and_names_none_twice() {
        let held = |count| (0..count).map(|number| format!("s{number}")).collect::<Vec<_>>();
        let granted = Scopes::granted(None, &held(SCOPES_MAX)).unwrap();
        assert_eq!(Scopes::parse(&granted.to_string()), Ok(granted));
        // Nobody can log in with more than the first refresh would take.
        assert_eq!(Scopes::granted(None, &held(SCOPES_MAX + 1)), Err(ScopeError::TooMany));
        assert!(Scopes::granted(Some("s64"), &held(SCOPES_MAX + 1)).is_ok());
        let twice = ["read", "write", "read"].map(str::to_owned);
        assert_eq!(Scopes::granted(None, &twice).unwrap().to_string(), "read write");
    }

    #[test]
    fn a_refresh_narrows_and_never_widens() {
        let first = Scopes::granted(Some("read write"), &held()).unwrap();
        assert_eq!(first.narrowed(None).unwrap(), first);
        let narrow = first.narrowed(Some("read")).unwrap();
        assert_eq!(narrow.to_string(), "read");
        // What the user has besides was not granted to this token.
        assert_eq!(first.narrowed(Some("users:delete")), Err(ScopeError::NotHeld));
        assert_eq!(first.still_held(&["write".to_owned()]).to_string(), "write");
    }

    proptest! {
        #[test]
        fn what_is_granted_is_always_held(asked in "[a-d \"é]{0,12}", held in proptest::collection::vec("[a-d]{1,2}", 0..5)) {
            if let Ok(granted) = Scopes::granted(Some(&asked), &held) {
                prop_assert!(granted.as_slice().iter().all(|scope| held.contains(scope)));
                prop_assert_eq!(Scopes::parse(&granted.to_string()).unwrap(), granted);
            }
        }
    }
}
