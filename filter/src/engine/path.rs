//! Guards the path that policy is decided on: only one that every server reads the same way gets that far.
//!
//! *What comes in:* `:path` as the host will forward it, normalised by the host if it is configured as ours is. *What
//! goes out:* its segments. *What an attacker gains if this is wrong:* a protected resource by a second spelling.

/// The longest path that is looked at, in bytes.
const PATH_BYTES_MAX: usize = 16 * 1024;

/// A path without its query, in the one spelling there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestPath<'r>(&'r str);

/// The path could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

impl<'r> RequestPath<'r> {
    /// Takes a request target apart. Refused are: anything but an absolute path, bytes that are not visible ASCII,
    /// fragments, backslashes, semicolons, empty segments before the last, segments that are or decode to `.` or `..`,
    /// escapes of slash, backslash, percent, NUL and other controls, and malformed escapes.
    pub(super) fn parse(target: &'r [u8]) -> Result<Self, Ambiguous> {
        if target.len() > PATH_BYTES_MAX {
            return Err(Ambiguous);
        }
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let path = target.get(..end).and_then(|path| std::str::from_utf8(path).ok()).ok_or(Ambiguous)?;
        let visible = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\\".contains(&byte));
        let Some(rest) = path.strip_prefix('/').filter(|_| visible) else { return Err(Ambiguous) };
        let mut segments = rest.split('/').peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            if segment.is_empty() && !last {
                return Err(Ambiguous);
            }
            let decoded = decode(segment).ok_or(Ambiguous)?;
            // Servers that know path parameters read `/admin;x` as `/admin`; others do not.
            if matches!(decoded.as_slice(), b"." | b"..") || decoded.contains(&b';') {
                return Err(Ambiguous);
            }
        }
        Ok(Self(path))
    }

    pub(super) fn as_str(self) -> &'r str {
        self.0
    }

    /// The path as a server reads it that resolves escapes and ignores case; `None` when that is the path itself.
    pub(super) fn folded(self) -> Option<String> {
        if !self.0.bytes().any(|byte| byte == b'%' || byte.is_ascii_uppercase()) {
            return None;
        }
        let segments = self.segments().map(|segment| decode(segment).unwrap_or_default());
        let path = segments.fold(String::with_capacity(self.0.len()), |mut path, segment| {
            path.push('/');
            path.push_str(&String::from_utf8_lossy(&segment).to_ascii_lowercase());
            path
        });
        Some(path)
    }

    /// The segments after the leading slash.
    pub(super) fn segments(self) -> impl Iterator<Item = &'r str> {
        self.0.strip_prefix('/').unwrap_or_default().split('/')
    }
}

/// A segment with its escapes resolved; `None` when one is malformed or stands for a byte that must not be escaped.
pub(super) fn decode(segment: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        let value = u8::try_from(high * 16 + low).ok()?;
        if value < 0x20 || value == 0x7f || b"/\\%".contains(&value) {
            return None;
        }
        decoded.push(value);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_servers_read_differently_are_refused() {
        for path in [
            "",
            "*",
            "x",
            "http://host/",
            "//a",
            "/a//b",
            "/./a",
            "/a/..",
            "/a/../b",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/a;v=1",
            "/a%3bv",
            "/a;v=1",
            "/a%3bv",
            "/a/..;/b",
            "/a/..;x=1/b",
            "/a/.;/b",
            "/a/%2e;/b",
            "/a/;/b",
            "/a/;x",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0a",
            "/a#b",
            "/a b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%252f",
            "/\u{e9}",
            "/a\u{0}b",
            "/a\tb",
        ] {
            assert_eq!(RequestPath::parse(path.as_bytes()), Err(Ambiguous), "{path:?}");
        }
        assert_eq!(RequestPath::parse(b"/\xff"), Err(Ambiguous));
        assert_eq!(RequestPath::parse(&vec![b'/'; PATH_BYTES_MAX + 1]), Err(Ambiguous));
    }

    #[test]
    fn ordinary_paths_pass_without_their_query() {
        for (target, path) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a?b=../c", "/a"),
            ("/a%20b", "/a%20b"),
            ("/...", "/..."),
            ("/caf%C3%A9", "/caf%C3%A9"),
            ("/a.b/c~d", "/a.b/c~d"),
            ("/?", "/"),
        ] {
            assert_eq!(RequestPath::parse(target.as_bytes()).map(RequestPath::as_str), Ok(path));
        }
    }
}
