//! A small HTTP client that shows everything of an answer and hides nothing of a failure.

mod one;
mod raw;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use self::one::OneConnection;
pub use self::raw::{RawAnswer, raw};

/// Sends requests; a clone shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Inner,
    timeout: Duration,
}

#[derive(Clone, Debug)]
enum Inner {
    Pool(Box<legacy::Client<HttpConnector, Full<Bytes>>>),
    One(OneConnection),
}

impl Client {
    /// HTTP/1.1 over connections that are kept.
    #[expect(clippy::new_without_default, reason = "there is no default among the kinds")]
    pub fn new() -> Self {
        Self::of(legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(64))
    }

    /// HTTP/1.1 over a new connection for each request, so that requests spread over Envoy's workers.
    pub fn fresh_connections() -> Self {
        Self::of(legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0))
    }

    /// HTTP/1.1 over one connection, so that one of Envoy's workers answers all requests.
    pub fn one_connection() -> Self {
        Self { inner: Inner::One(OneConnection::default()), timeout: TIMEOUT }
    }

    /// HTTP/2 without TLS, known in advance.
    pub fn http2() -> Self {
        Self::of(legacy::Client::builder(TokioExecutor::new()).http2_only(true))
    }

    fn of(builder: &legacy::Builder) -> Self {
        Self { inner: Inner::Pool(Box::new(builder.build(HttpConnector::new()))), timeout: TIMEOUT }
    }

    /// The same client with another limit on how long one request may take, the answer's body included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts a `GET`.
    pub fn get(&self, url: &str) -> Request<'_> {
        self.request("GET", url)
    }

    /// Starts a `POST`.
    pub fn post(&self, url: &str) -> Request<'_> {
        self.request("POST", url)
    }

    /// Starts a request; a method, URL or header that is none is reported by [`Request::send`].
    pub fn request(&self, method: &str, url: &str) -> Request<'_> {
        let what = format!("{method} {url}");
        let method = Method::from_bytes(method.as_bytes()).context("not a method");
        let head = method.map(|method| hyper::Request::builder().method(method).uri(url));
        Request { client: self, what, head, body: Bytes::new() }
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// A request that is being put together.
#[derive(Debug)]
#[must_use = "nothing happens until it is sent"]
pub struct Request<'a> {
    client: &'a Client,
    what: String,
    head: Result<hyper::http::request::Builder>,
    body: Bytes,
}

impl Request<'_> {
    /// Adds a header; earlier ones of the same name stay.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.head = self.head.and_then(|head| {
            let name =
                HeaderName::from_bytes(name.as_bytes()).with_context(|| format!("header name {name:?}"))?;
            let value =
                HeaderValue::from_bytes(value.as_ref()).with_context(|| format!("value of {name}"))?;
            Ok(head.header(name, value))
        });
        self
    }

    /// Adds `Authorization: Bearer …`.
    pub fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION.as_str(), format!("Bearer {token}"))
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body.
    pub fn json(self, value: &Value) -> Self {
        self.header(CONTENT_TYPE.as_str(), "application/json").body(value.to_string())
    }

    /// Sets a form-encoded body.
    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let field =
            |(name, value): &(&str, &str)| format!("{}={}", percent_encoded(name), percent_encoded(value));
        let body = fields.iter().map(field).collect::<Vec<_>>().join("&");
        self.header(CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded").body(body)
    }

    /// Sends it and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// When there is no whole answer within the client's timeout.
    pub async fn send(self) -> Result<Response> {
        let Self { client, what, head, body } = self;
        let exchange = async {
            let request = head?.body(Full::new(body))?;
            let response = match &client.inner {
                Inner::Pool(pool) => pool.request(request).await?,
                Inner::One(connection) => connection.request(request).await?,
            };
            let (parts, body) = response.into_parts();
            let collected = body.collect().await.context("reading the body")?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let body = collected.to_bytes();
            Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
        };
        let finished = tokio::time::timeout(client.timeout, exchange).await;
        let answered =
            finished.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {:?}", client.timeout)));
        answered.context(what)
    }

    /// Sends it and insists on a status of the 200s.
    ///
    /// # Errors
    /// Those of [`send`](Self::send), and any other status; the error shows the body.
    pub async fn send_ok(self) -> Result<Response> {
        let what = self.what.clone();
        let response = self.send().await?;
        ensure!((200..300).contains(&response.status), "{what}: {response}");
        Ok(response)
    }
}

/// An answer that has been read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers, repeated ones included.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: HeaderMap,
}

impl Response {
    /// The first value of a header, when it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Every value of a header that is text.
    pub fn header_values(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none; the error shows it.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {self}"))
    }

    /// The body as text; bytes that are none are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// One value of a JSON body by its JSON pointer.
    ///
    /// # Errors
    /// When the body is not JSON or has nothing there; the error shows it.
    pub fn json_at(&self, pointer: &str) -> Result<Value> {
        self.json()?.pointer(pointer).cloned().with_context(|| format!("nothing at {pointer}: {self}"))
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {}, body {:?}", self.status, self.text())
    }
}

fn percent_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_fields_are_escaped() {
        assert_eq!(percent_encoded("a+b c/ü.~"), "a%2Bb%20c%2F%C3%BC.~");
    }

    #[tokio::test]
    async fn refused_connection_and_bad_header_are_told_apart() {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let refused = Client::new().get(&format!("http://{free}/")).send().await.unwrap_err();
        assert!(format!("{refused:#}").contains(&format!("GET http://{free}/")), "{refused:#}");
        let invalid = Client::new().get("http://127.0.0.1/").header("a\nb", "c").send().await.unwrap_err();
        assert!(format!("{invalid:#}").contains("header name"), "{invalid:#}");
    }
}
