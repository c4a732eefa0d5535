//! One request through the proxy: what the target says to it, and what is made of that.

use std::sync::Arc;

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use hyper::{Method, Request};
use tokio::time::sleep;

use super::body::Given;
use super::tally::Visit;
use super::{Ending, Kind, Mode, Shared};
use crate::client::Response;

/// Why a connection ends without a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is reset, as the mode has it.
    Reset,
    /// It is cut in the middle of a body, as the mode has it.
    Cut,
    /// The target, or the client, was not to be understood or not there.
    Peer,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{self:?}")
    }
}

impl std::error::Error for Broken {}

/// A request that was read to its end.
#[derive(Clone, Debug)]
struct Asked {
    method: Method,
    /// With its query.
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An answer, and one that the next request is to get.
struct Treated {
    answer: Response,
    owed: Option<Response>,
}

impl From<Response> for Treated {
    fn from(answer: Response) -> Self {
        Self { answer, owed: None }
    }
}

pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<hyper::Response<Given>, Broken> {
    let asked = Asked::read(request).await?;
    let place = asked.place();
    let visit = Visit::begin(&shared, &place);
    let mut rules = shared.rules.subscribe();
    loop {
        let mode = rules.borrow_and_update().mode(&asked.path);
        let treated = tokio::select! {
            treated = shared.treat(mode, &asked, &place) => treated,
            _ = rules.wait_for(|rules| rules.mode(&asked.path) != mode) => continue,
        };
        // Several may have come to the same end at once, and it may have been meant for one of them.
        if !shared.claim(&asked.path, mode) {
            continue;
        }
        visit.count(|tally| {
            let passed = mode == Mode::Pass;
            tally.passed += u64::from(passed && treated.is_ok());
            tally.spoiled += u64::from(!passed);
        });
        let Treated { answer, owed } = treated?;
        if let Some(owed) = owed {
            shared.memory().owed.entry(place).or_default().push_back(owed);
        }
        return given(mode, answer, visit);
    }
}

impl Asked {
    async fn read(request: Request<Incoming>) -> Result<Self, Broken> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let body = body.collect().await.map_err(|_| Broken::Peer)?.to_bytes();
        Ok(Self { method: parts.method, path, headers: parts.headers, body })
    }

    /// Under what it is counted: the first three segments of its path.
    fn place(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        path.splitn(5, '/').take(4).collect::<Vec<_>>().join("/")
    }

    fn query(&self) -> impl Iterator<Item = &str> {
        self.path.split_once('?').map_or("", |(_, query)| query).split('&')
    }

    fn kind(&self) -> Kind {
        if self.query().any(|pair| pair.starts_with("after=")) { Kind::After } else { Kind::Whole }
    }

    /// What somebody would ask who is one position further and does not wait; `None` from who has nothing.
    fn one_further(&self) -> Option<Self> {
        let after: u64 = self.query().find_map(|pair| pair.strip_prefix("after="))?.parse().ok()?;
        let changed = self.query().map(|pair| match pair.split_once('=') {
            Some(("after", _)) => format!("after={}", after.saturating_add(1)),
            Some(("wait", _)) => "wait=0".to_owned(),
            Some(_) | None => pair.to_owned(),
        });
        let query = changed.collect::<Vec<_>>().join("&");
        let path = self.path.split('?').next().unwrap_or_default();
        Some(Self { path: format!("{path}?{query}"), ..self.clone() })
    }
}

impl Shared {
    /// What is to be said, before it is shortened or slowed down.
    async fn treat(&self, mode: Mode, asked: &Asked, place: &str) -> Result<Treated, Broken> {
        match mode {
            Mode::Hang => std::future::pending().await,
            Mode::Reset => Err(Broken::Reset),
            Mode::Status(status) => Ok(made_up(status, "text/plain", "upset").into()),
            Mode::Html => Ok(made_up(200, "text/html", PAGE).into()),
            Mode::ReplayOld(kind) => {
                let first = self.memory().first.get(&(place.to_owned(), kind)).cloned();
                // Before there is an old one, every answer is a new one.
                Ok(match first {
                    Some(first) => first.into(),
                    None => self.obtain(asked).await?.into(),
                })
            }
            Mode::Delay(delay) => {
                let answer = self.next(asked, place).await?;
                sleep(delay).await;
                Ok(answer.into())
            }
            Mode::Gap => {
                let swallowed = self.next(asked, place).await?;
                Ok(match asked.one_further() {
                    Some(further) => self.obtain(&further).await?.into(),
                    None => swallowed.into(),
                })
            }
            Mode::Duplicate | Mode::Reorder if self.owes(place) => Ok(self.next(asked, place).await?.into()),
            Mode::Duplicate => {
                let answer = self.obtain(asked).await?;
                Ok(Treated { answer: answer.clone(), owed: Some(answer) })
            }
            Mode::Reorder => {
                let answer = self.obtain(asked).await?;
                Ok(match asked.one_further() {
                    Some(further) => Treated { answer: self.obtain(&further).await?, owed: Some(answer) },
                    None => answer.into(),
                })
            }
            Mode::Pass => {
                let answer = self.next(asked, place).await?;
                self.memory().first.entry((place.to_owned(), asked.kind())).or_insert_with(|| answer.clone());
                Ok(answer.into())
            }
            Mode::Bandwidth(_) | Mode::Truncate(..) | Mode::Flip(_) => {
                Ok(self.next(asked, place).await?.into())
            }
        }
    }

    fn owes(&self, place: &str) -> bool {
        self.memory().owed.get(place).is_some_and(|owed| !owed.is_empty())
    }

    /// An answer that is owed to somebody, or else the target's.
    async fn next(&self, asked: &Asked, place: &str) -> Result<Response, Broken> {
        let owed = self.memory().owed.get_mut(place).and_then(std::collections::VecDeque::pop_front);
        match owed {
            Some(owed) => Ok(owed),
            None => self.obtain(asked).await,
        }
    }

    async fn obtain(&self, asked: &Asked) -> Result<Response, Broken> {
        let target = self.rules.borrow().target;
        let url = format!("http://{target}{}", asked.path);
        let mut request = self.client.request(asked.method.as_str(), &url).body(asked.body.clone());
        for (name, value) in asked.headers.iter().filter(|(name, _)| !is_of_the_connection(name)) {
            request = request.header(name.as_str(), value.as_bytes());
        }
        request.send().await.context("the target").map_err(|_| Broken::Peer)
    }
}

const PAGE: &str = "<!doctype html><title>Portal</title><p>Please accept the terms of this network.</p>";

fn made_up(status: u16, media_type: &'static str, body: &'static str) -> Response {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
    Response { status, headers, body: Bytes::from_static(body.as_bytes()), trailers: HeaderMap::new() }
}

fn is_of_the_connection(name: &hyper::header::HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)
}

fn given(mode: Mode, answer: Response, visit: Visit) -> Result<hyper::Response<Given>, Broken> {
    let Response { status, headers, body, trailers: _ } = answer;
    let whole = body.len();
    visit.count(|tally| {
        *tally.statuses.entry(status).or_default() += 1;
        tally.latest_length = whole as u64;
    });
    let body = match mode {
        Mode::Bandwidth(bytes_per_second) => Given::slow(body, bytes_per_second, visit),
        Mode::Truncate(bytes, ending) => {
            let cut = body.slice(..bytes.min(whole.saturating_sub(1)));
            match ending {
                Ending::Framed => Given::whole(cut, visit),
                Ending::Cut => Given::cut(cut, whole, visit),
            }
        }
        Mode::Flip(byte) => Given::whole(flipped(&body, byte), visit),
        Mode::Pass
        | Mode::Delay(_)
        | Mode::Hang
        | Mode::Reset
        | Mode::Status(_)
        | Mode::Html
        | Mode::ReplayOld(_)
        | Mode::Gap
        | Mode::Duplicate
        | Mode::Reorder => Given::whole(body, visit),
    };
    let mut response = hyper::Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status).map_err(|_| Broken::Peer)?;
    response.headers_mut().extend(headers);
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    Ok(response)
}

fn flipped(body: &Bytes, byte: usize) -> Bytes {
    let mut bytes = body.to_vec();
    let last = bytes.len().saturating_sub(1);
    if let Some(byte) = bytes.get_mut(byte.min(last)) {
        *byte ^= 1;
    }
    bytes.into()
}
