//! Decides what the body of an OAuth request says.
//!
//! *What comes in:* a form of bounded size, chosen by anyone. *What goes out:* its parameters, each at most once, in
//! UTF-8. *What an attacker gains if this is wrong:* a parameter that one reader takes for the first of two and another
//! for the second.

use std::fmt;

use axum::body::Body;
use axum::http::HeaderMap;
use zeroize::Zeroizing;

use super::error::{OAuthError, RequestFault};
use crate::body;

/// The longest form, in bytes: a client assertion and a refresh token fit many times.
const FORM_BYTES_MAX: usize = 64 * 1024;
/// The most parameters of a form.
const PARAMETERS_MAX: usize = 64;

/// The parameters of a form, none of them twice.
#[derive(Clone)]
pub struct Form(Vec<(String, Zeroizing<String>)>);

// A form may hold a token or a secret.
impl fmt::Debug for Form {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Form(…)")
    }
}

impl Form {
    /// Reads the form that is the body of a request with these headers.
    ///
    /// # Errors
    /// [`OAuthError`] when it is no form, is too long, or does not arrive.
    pub async fn read(headers: &HeaderMap, body: Body) -> Result<Self, OAuthError> {
        if !body::has_media_type(headers, "application/x-www-form-urlencoded") {
            return Err(RequestFault::MediaType.into());
        }
        let bytes = body::read(body, FORM_BYTES_MAX).await?;
        let form = Self::parse(&bytes);
        body::wipe(bytes);
        Ok(form?)
    }

    /// Parses a form. Escapes that are none and text that is not UTF-8 are refused, not mended.
    ///
    /// # Errors
    /// [`RequestFault`] says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, RequestFault> {
        let mut parameters: Vec<(String, Zeroizing<String>)> = Vec::new();
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            let name = decoded(name).ok_or(RequestFault::NotForm)?;
            let value = decoded(value).ok_or(RequestFault::NotForm)?;
            if parameters.iter().any(|(known, _)| *known == *name) {
                return Err(RequestFault::Repeated);
            }
            if parameters.len() >= PARAMETERS_MAX {
                return Err(RequestFault::TooManyParameters);
            }
            parameters.push((String::clone(&name), value));
        }
        Ok(Self(parameters))
    }

    /// The same of parameters that came in another shape.
    #[must_use]
    pub fn of(parameters: Vec<(String, Zeroizing<String>)>) -> Self {
        Self(parameters)
    }

    /// The value called `name`; one that is empty counts as absent (RFC 6749 section 3.2).
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The same, for a parameter that must be there.
    ///
    /// # Errors
    /// [`RequestFault::Missing`].
    pub fn required(&self, name: &'static str) -> Result<&str, RequestFault> {
        self.value(name).ok_or(RequestFault::Missing(name))
    }
}

/// Decodes one name or value of `application/x-www-form-urlencoded`; `None` when an escape is broken or the text is not
/// UTF-8.
pub(crate) fn decoded(encoded: &[u8]) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut rest = encoded.iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(*rest.next()?)? << 4 | hex_digit(*rest.next()?)?,
            other => *other,
        });
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_is_read_strictly() {
        let faults: [(&[u8], RequestFault); 9] = [
            (b"a=1&a=2", RequestFault::Repeated),
            (b"a=1&a=", RequestFault::Repeated),
            (b"a&a", RequestFault::Repeated),
            (b"token=1&%74oken=2", RequestFault::Repeated),
            (b"a=%", RequestFault::NotForm),
            (b"a=%4", RequestFault::NotForm),
            (b"a=%g0", RequestFault::NotForm),
            (b"a=%ff", RequestFault::NotForm),
            (b"a=\xff", RequestFault::NotForm),
        ];
        for (bytes, fault) in faults {
            assert_eq!(Form::parse(bytes).unwrap_err(), fault, "{}", String::from_utf8_lossy(bytes));
        }
        let many: Vec<_> = (0..=PARAMETERS_MAX).map(|number| format!("p{number}=")).collect();
        assert_eq!(Form::parse(many.join("&").as_bytes()).unwrap_err(), RequestFault::TooManyParameters);
        assert!(Form::parse(many[1..].join("&").as_bytes()).is_ok());
    }

    #[test]
    fn values_are_decoded_and_empty_ones_are_absent() {
        let form = Form::parse(b"&&a=1+2%2B%26%3d=&b=&c&d=%C3%A9&=x&%65=f=g").unwrap();
        assert_eq!(form.value("a"), Some("1 2+&=="));
        assert_eq!((form.value("b"), form.value("c"), form.value("z")), (None, None, None));
        assert_eq!(form.value("d"), Some("é"));
        assert_eq!(form.value("e"), Some("f=g"));
        assert_eq!(form.required("b"), Err(RequestFault::Missing("b")));
        assert!(Form::parse(b"").unwrap().value("a").is_none());
        assert_eq!(format!("{form:?}"), "Form(…)");
    }

    proptest! {
        #[test]
        fn what_another_library_encodes_is_read_back(text in any::<String>()) {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let read = decoded(encoded.as_bytes()).unwrap();
            prop_assert_eq!(read.as_str(), text.as_str());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&bytes);
        }
    }
}
