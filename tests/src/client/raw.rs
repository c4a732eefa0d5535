//! Sends bytes as they are, for requests that no client would make.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hyper::body::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Response;

/// What came back.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// Every byte that was read.
    pub bytes: Vec<u8>,
    /// The first final HTTP/1.1 answer in them; `None` when the other side closed before one was whole.
    pub response: Option<Response>,
}

/// Writes `bytes` to a new connection and reads one HTTP/1.1 answer: by its length, its chunks, or until it is closed.
///
/// # Errors
/// When nothing listens, or the connection stays open without a whole answer.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Result<RawAnswer> {
    let exchange = async {
        let mut stream =
            TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        // A server may answer and close before it has read everything; what it answered still counts.
        let written = stream.write_all(bytes).await;
        let mut answer = RawAnswer { bytes: Vec::new(), response: None };
        loop {
            let mut buffer = [0; 16 * 1024];
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            answer.bytes.extend(buffer.iter().take(read));
            ensure!(
                answer.bytes.len() <= ANSWER_BYTES_MAX,
                "the answer is longer than {ANSWER_BYTES_MAX} bytes"
            );
            answer.response = parse(&answer.bytes, read == 0)?;
            if answer.response.is_some() || read == 0 {
                break;
            }
        }
        ensure!(written.is_ok() || !answer.bytes.is_empty(), "{address} closed before it read the request");
        Ok(answer)
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("no whole answer within {TIMEOUT:?}"))?
}

const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(15);

/// The first final answer in `bytes`, or `None` while it is not whole.
fn parse(bytes: &[u8], closed: bool) -> Result<Option<Response>> {
    let mut rest = bytes;
    loop {
        let Some((head, body)) = split_once(rest, b"\r\n\r\n") else { return Ok(None) };
        let (status, headers) = parse_head(head)?;
        if (100..200).contains(&status) {
            rest = body;
            continue;
        }
        let chunked =
            headers.get(TRANSFER_ENCODING).is_some_and(|coding| coding.as_bytes().ends_with(b"chunked"));
        let length = headers.get(CONTENT_LENGTH).map(|length| number(length.as_bytes(), 10)).transpose()?;
        let body = match length {
            _ if status == 204 || status == 304 => Some(Vec::new()),
            _ if chunked => unchunked(body)?,
            Some(length) => body.get(..length).map(<[u8]>::to_vec),
            None => closed.then(|| body.to_vec()),
        };
        return Ok(body.map(|body| Response {
            status,
            headers,
            body: Bytes::from(body),
            trailers: HeaderMap::new(),
        }));
    }
}

fn parse_head(head: &[u8]) -> Result<(u16, HeaderMap)> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ');
    let (Some("HTTP/1.1" | "HTTP/1.0"), Some(status)) = (words.next(), words.next()) else {
        bail!("not an HTTP/1 status line: {first:?}");
    };
    let status = status.parse().with_context(|| format!("not a status: {first:?}"))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value.trim())?);
    }
    Ok((status, headers))
}

fn unchunked(mut rest: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some((line, after)) = split_once(rest, b"\r\n") else { return Ok(None) };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = number(size, 16)?;
        if size == 0 {
            // Trailers, if any, end at an empty line.
            let ended = after.starts_with(b"\r\n") || split_once(after, b"\r\n\r\n").is_some();
            return Ok(ended.then_some(body));
        }
        let (Some(chunk), Some(next)) = (after.get(..size), after.get(size + 2..)) else { return Ok(None) };
        body.extend(chunk);
        rest = next;
    }
}

fn number(text: &[u8], radix: u32) -> Result<usize> {
    let text = String::from_utf8_lossy(text);
    usize::from_str_radix(text.trim(), radix).with_context(|| format!("not a length: {text:?}"))
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((bytes.get(..at)?, bytes.get(at + separator.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(bytes: &[u8], closed: bool) -> Option<String> {
        parse(bytes, closed).unwrap().map(|response| response.text())
    }

    #[test]
    fn answer_ends_by_length_by_chunks_or_by_close() {
        let sized = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 ";
        assert_eq!(body_of(sized, false).as_deref(), Some("abc"));
        let chunked =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(body_of(chunked, false).as_deref(), Some("abcde"));
        for end in 0..chunked.len() {
            assert_eq!(body_of(&chunked[..end], true), None, "{end}");
        }
        let open = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert_eq!(body_of(open, false), None);
        assert_eq!(body_of(open, true).as_deref(), Some("abc"));
    }

    #[test]
    fn interim_answer_is_passed_over() {
        let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401 Unauthorized\r\nA: b\r\na: c\r\ncontent-length: 0\r\n\r\n";
        let response = parse(bytes, false).unwrap().unwrap();
        assert_eq!((response.status, response.header_values("a")), (401, vec!["b", "c"]));
    }
}
