//! Guards the JSON inside a token: one value, no member named twice at any depth, bounded depth and size.
//!
//! *What comes in:* the decoded header or payload, at most as long as a token. *What goes out:* a [`JsonValue`].
//! *What an attacker gains if this is wrong:* a claim that the edge reads one way and the application another.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Nesting deeper than this is refused, far below what the stack of a wasm VM holds.
const DEPTH_MAX: u8 = 16;
/// Members of one object, or elements of one array, beyond this number are refused.
const ENTRIES_MAX: usize = 256;

/// A JSON value in which every object's member names differ.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonValue {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number from 0 to 2^64 - 1.
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Self>),
    /// An object, in the order of its members.
    Object(Vec<(String, Self)>),
}

/// Why bytes are not JSON as a token may carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum JsonError {
    /// Not one JSON value in UTF-8, or a number that does not fit.
    #[error("not valid json")]
    Malformed,
    /// A member name stands twice in one object (RFC 7515 section 4, RFC 7519 section 4).
    #[error("duplicate member")]
    DuplicateMember,
    /// Nested too deep, or too many entries.
    #[error("too deep or too many entries")]
    TooLarge,
}

impl JsonValue {
    /// Parses one value and nothing after it.
    ///
    /// # Errors
    /// See [`JsonError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let mut fault = JsonError::Malformed;
        let seed = Seed { depth: 0, fault: &mut fault };
        let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        parsed.map_err(|_| fault)
    }

    /// The member `name`, if this is an object that has it.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            Self::Null
            | Self::Bool(_)
            | Self::Unsigned(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::List(_) => None,
        }
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null
            | Self::Bool(_)
            | Self::Unsigned(_)
            | Self::Float(_)
            | Self::List(_)
            | Self::Object(_) => None,
        }
    }

    /// The elements, if this is an array.
    #[must_use]
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(elements) => Some(elements),
            Self::Null
            | Self::Bool(_)
            | Self::Unsigned(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Object(_) => None,
        }
    }
}

struct Seed<'f> {
    depth: u8,
    fault: &'f mut JsonError,
}

impl Seed<'_> {
    fn inner(&mut self) -> Seed<'_> {
        Seed { depth: self.depth.saturating_add(1), fault: self.fault }
    }

    fn refuse<E: serde::de::Error>(&mut self, fault: JsonError) -> E {
        *self.fault = fault;
        E::custom(fault)
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = JsonValue;

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<JsonValue, D::Error> {
        if self.depth > DEPTH_MAX {
            return Err(self.refuse(JsonError::TooLarge));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = JsonValue;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a json value")
    }

    fn visit_unit<E>(self) -> Result<JsonValue, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonValue, E> {
        Ok(JsonValue::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<JsonValue, E> {
        Ok(JsonValue::Unsigned(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "a negative number is refused wherever it could matter")]
    fn visit_i64<E>(self, value: i64) -> Result<JsonValue, E> {
        Ok(JsonValue::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsonValue, E> {
        Ok(JsonValue::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<JsonValue, E> {
        Ok(JsonValue::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut access: A) -> Result<JsonValue, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(self.inner())? {
            if list.len() >= ENTRIES_MAX {
                return Err(self.refuse(JsonError::TooLarge));
            }
            list.push(value);
        }
        Ok(JsonValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut access: A) -> Result<JsonValue, A::Error> {
        let mut members: Vec<(String, JsonValue)> = Vec::new();
        while let Some(name) = access.next_key::<String>()? {
            if members.iter().any(|(known, _)| *known == name) {
                return Err(self.refuse(JsonError::DuplicateMember));
            }
            if members.len() >= ENTRIES_MAX {
                return Err(self.refuse(JsonError::TooLarge));
            }
            let value = access.next_value_seed(self.inner())?;
            members.push((name, value));
        }
        Ok(JsonValue::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_named_twice_is_refused_at_any_depth() {
        assert_eq!(JsonValue::parse(br#"{"a":1,"a":1}"#), Err(JsonError::DuplicateMember));
        assert_eq!(JsonValue::parse(br#"{"x":[{"a":1,"\u0061":2}]}"#), Err(JsonError::DuplicateMember));
        assert!(JsonValue::parse(br#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        assert_eq!(JsonValue::parse(deep.as_bytes()), Err(JsonError::TooLarge));
        let allowed = "[".repeat(16) + &"]".repeat(16);
        assert!(JsonValue::parse(allowed.as_bytes()).is_ok());
    }

    #[test]
    fn entries_are_bounded() {
        let wide = format!("[{}1]", "1,".repeat(ENTRIES_MAX));
        assert_eq!(JsonValue::parse(wide.as_bytes()), Err(JsonError::TooLarge));
    }

    #[test]
    fn one_value_and_nothing_after_it() {
        assert_eq!(JsonValue::parse(b"{} {}"), Err(JsonError::Malformed));
        assert_eq!(JsonValue::parse(b""), Err(JsonError::Malformed));
        assert_eq!(JsonValue::parse(b"\xef\xbb\xbf{}"), Err(JsonError::Malformed));
    }
}
