//! One HTTP/1.1 connection that is kept, on the thread that uses it: as little work as sending and reading can be.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64ct::{Base64, Encoding as _};
use serde_json::Value;

/// A connection. Requests on it follow each other.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer, as it came.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.head))
    }

    /// A text of the JSON body.
    pub(crate) fn text(&self, member: &str) -> Result<String> {
        let value = self.json()?;
        let text = value.get(member).and_then(Value::as_str);
        text.map(str::to_owned).with_context(|| format!("no {member}: {value}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// An error unless the status is this one.
    pub(crate) fn expect(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        Ok(self)
    }
}

/// A request as bytes, made once when it is sent often.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{headers}content-length: {length}\r\n\r\n{body}")
        .into()
}

pub(crate) fn post_json(path: &str, body: &Value) -> Vec<u8> {
    request("POST", path, &[("content-type", "application/json")], &body.to_string())
}

/// The same, of a client that authenticates.
pub(crate) fn post_json_as(authorization: &str, path: &str, body: &Value) -> Vec<u8> {
    let headers = [("content-type", "application/json"), ("authorization", authorization)];
    request("POST", path, &headers, &body.to_string())
}

/// The `Authorization` header of a client that authenticates with a secret.
pub(crate) fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", Base64::encode_string(format!("{id}:{secret}").as_bytes()))
}

/// A form of values that need no escaping.
pub(crate) fn post_form(path: &str, authorization: &str, form: &str) -> Vec<u8> {
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", authorization)];
    request("POST", path, &headers, form)
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, read: Vec::with_capacity(8192) })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request)?;
        let head_end = loop {
            if let Some(place) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break place + 4;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.read.drain(..head_end).collect();
        let head = String::from_utf8(head)?;
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let mut answer = Answer { status: status.context("no status")?, head, body: Vec::new() };
        let length = answer.header("content-length").context("an answer without a length")?;
        let length: usize = length.parse()?;
        while self.read.len() < length {
            self.fill()?;
        }
        answer.body = self.read.drain(..length).collect();
        Ok(answer)
    }

    fn fill(&mut self) -> Result<()> {
        let mut bytes = [0; 8192];
        let count = self.stream.read(&mut bytes)?;
        ensure!(count > 0, "the connection was closed in the middle of an answer");
        self.read.extend(bytes.iter().take(count));
        Ok(())
    }
}
