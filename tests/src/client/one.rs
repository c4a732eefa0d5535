//! One connection on which requests follow each other: whoever answers the first, such as one of Envoy's workers, answers all of them
//! until the connection is closed. A pool may open another one although the first is about to come free.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// The connection, which is opened when it is needed.
#[derive(Clone, Debug, Default)]
pub(super) struct OneConnection(Arc<Mutex<Option<SendRequest<Full<Bytes>>>>>);

impl OneConnection {
    /// Sends a request. Its answer has to be read before the next one is sent.
    pub(super) async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let authority = request.uri().authority().context("a URL without an authority")?.clone();
        let mut request = request;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse::<Uri>()?;
        *request.uri_mut() = path;
        request.headers_mut().entry(HOST).or_insert(HeaderValue::from_str(authority.as_str())?);
        let mut kept = self.0.lock().await;
        // One that was closed while nobody used it has taken nothing of the request.
        for _ in 0..2 {
            let mut open = match kept.take().filter(|open| !open.is_closed()) {
                Some(open) => open,
                None => connect(authority.as_str()).await?,
            };
            if open.ready().await.is_err() {
                continue;
            }
            match open.try_send_request(request).await {
                Ok(response) => {
                    *kept = Some(open);
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        bail!("the connection is closed whenever it is used")
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(authority).await.with_context(|| format!("connecting to {authority}"))?;
    let (open, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end is noticed by who sends the next request.
    tokio::spawn(connection);
    Ok(open)
}
