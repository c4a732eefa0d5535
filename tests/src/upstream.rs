//! The application behind the edge: answers every request with what it saw of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::accepting::serve_each;

/// An HTTP/1.1 and h2c server that echoes. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Upstream {
    /// Starts it on a port that the system picks.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("binding the upstream")?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        let serving =
            tokio::spawn(serve_each(listener, move |stream| connection(stream, Arc::clone(&counted))));
        Ok(Self { address, requests, serving })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have reached it.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn connection(stream: TcpStream, requests: Arc<AtomicU64>) {
    let echo = service_fn(move |request: Request<Incoming>| {
        requests.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Infallible>(answer(request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // A client that goes away early is its own business.
    server.serve_connection(TokioIo::new(stream), echo).await.ok();
}

async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let (body_bytes, trailers) = match body.collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().map(pairs);
            (json!(collected.to_bytes().len()), trailers)
        }
        Err(error) => (json!(error.to_string()), None),
    };
    let seen = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map_or("/", |path| path.as_str()),
        "headers": pairs(&parts.headers),
        "trailers": trailers.unwrap_or_else(|| json!([])),
        "body_bytes": body_bytes,
    });
    let mut response = Response::new(Full::new(Bytes::from(seen.to_string())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("x-upstream", HeaderValue::from_static("echo"));
    response
}

fn pairs(headers: &HeaderMap) -> Value {
    let pair = |(name, value): (_, &HeaderValue)| {
        let name: &hyper::header::HeaderName = name;
        json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
    };
    headers.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, raw};

    #[tokio::test]
    async fn request_comes_back_as_it_was_seen() {
        let upstream = Upstream::start().await.unwrap();
        for client in [Client::new(), Client::fresh_connections(), Client::one_connection(), Client::http2()]
        {
            let url = format!("{}/some/path?and=query", upstream.url());
            let sent = client.request("PUT", &url).header("x-one", "1").header("x-one", "2").body("four");
            let response = sent.send().await.unwrap();
            assert_eq!((response.status, response.header("x-upstream")), (200, Some("echo")));
            let seen = response.json().unwrap();
            assert_eq!((&seen["method"], &seen["body_bytes"]), (&json!("PUT"), &json!(4)));
            assert_eq!(seen["path"], "/some/path?and=query");
            let headers = seen["headers"].as_array().unwrap();
            assert!(headers.contains(&json!(["x-one", "1"])) && headers.contains(&json!(["x-one", "2"])));
        }
        assert_eq!(upstream.requests(), 4);
    }

    #[tokio::test]
    async fn trailers_are_seen() {
        let upstream = Upstream::start().await.unwrap();
        let request = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n\
            3\r\nabc\r\n0\r\nx-late: yes\r\n\r\n";
        let response = raw(upstream.addr(), request).await.unwrap().response.unwrap();
        let seen = response.json().unwrap();
        assert_eq!((&seen["body_bytes"], &seen["trailers"]), (&json!(3), &json!([["x-late", "yes"]])));
    }
}
