//! The names things go by, one type each, so that a session is never looked up where a subject is meant.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};

/// The longest identifier that is taken in, in bytes. Longer ones are refused where they enter.
pub const ID_BYTES_MAX: usize = 255;

macro_rules! string_id {
    ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes `text` as it is; `None` when it is empty or longer than [`ID_BYTES_MAX`].
            #[must_use]
            pub fn new(text: &str) -> Option<Self> {
                (!text.is_empty() && text.len() <= ID_BYTES_MAX).then(|| Self(text.into()))
            }

            /// The identifier's text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )+};
}

string_id! {
    /// Who a token speaks for: its `sub`.
    Subject,
    /// The login a token came from: its `sid`.
    SessionId,
    /// The OAuth client a token was given to: its `client_id`.
    ClientId,
    /// The customer a subject belongs to: its `tenant`.
    TenantId,
    /// One token: its `jti`.
    TokenId,
    /// One signing key: the `kid` of a JWK.
    KeyId,
    /// Who made a token: its `iss`.
    IssuerId,
    /// One edge (an Envoy process, a Worker), as the operator named it.
    EdgeId,
    /// A price plan, such as `free`.
    PlanName,
}

impl KeyId {
    /// The id of a key by its SHA-256 thumbprint (RFC 7638): 43 characters of base64url.
    #[must_use]
    pub fn of_digest(thumbprint: &[u8; 32]) -> Self {
        Self(Base64UrlUnpadded::encode_string(thumbprint).into())
    }
}

/// Two hexadecimal digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
