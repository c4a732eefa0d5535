//! Finds the one credential of a request, and refuses a request that has two.

use super::denial::Denial;
use super::headers::RequestView;
use crate::config::TokenHeader;

/// A token and the header it came in.
#[derive(Clone, Copy)]
pub(super) struct Credential<'r> {
    pub(super) token: &'r [u8],
    pub(super) source: usize,
}

/// Looks for a token in `sources`. Query, body and cookies are never looked at (RFC 9700 section 4.3.2).
pub(super) fn find<'r>(
    sources: &[TokenHeader],
    request: &RequestView<'r>,
) -> Result<Option<Credential<'r>>, Denial> {
    let mut found: Option<Credential<'r>> = None;
    for (name, value) in request.headers {
        // Two Authorization headers are refused whatever their schemes: the application might read the other one.
        let mut candidates = sources
            .iter()
            .enumerate()
            .filter(|(_, source)| name.eq_ignore_ascii_case(source.name.as_bytes()));
        let Some(first) = candidates.next() else { continue };
        if occurrences(request, name) > 1 {
            return Err(Denial::AmbiguousCredential);
        }
        for (place, source) in std::iter::once(first).chain(candidates) {
            let prefix = source.value_prefix.as_bytes();
            let Some(token) = after_prefix(value, prefix) else {
                // Hosts join repeated headers with commas, and then ours may stand second.
                let joined = value.split(|byte| *byte == b',').skip(1).map(<[u8]>::trim_ascii_start);
                if !prefix.is_empty() && joined.into_iter().any(|part| after_prefix(part, prefix).is_some()) {
                    return Err(Denial::AmbiguousCredential);
                }
                continue;
            };
            if found.is_some() {
                return Err(Denial::AmbiguousCredential);
            }
            found = Some(Credential { token: well_formed(token)?, source: place });
        }
    }
    Ok(found)
}

fn occurrences(request: &RequestView<'_>, name: &[u8]) -> usize {
    request.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).count()
}

/// What follows `prefix`, whose letters may be in any case (RFC 9110 section 11.1).
fn after_prefix<'v>(value: &'v [u8], prefix: &[u8]) -> Option<&'v [u8]> {
    let (start, rest) = value.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// `b64token` of RFC 6750 section 2.1. A comma would be a second credential that some intermediary joined on.
fn well_formed(token: &[u8]) -> Result<&[u8], Denial> {
    if token.contains(&b',') {
        return Err(Denial::AmbiguousCredential);
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    if token.is_empty() || !token.iter().all(allowed) {
        return Err(Denial::MalformedCredential);
    }
    Ok(token)
}
