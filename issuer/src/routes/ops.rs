//! `/livez`, `/readyz`, `/metrics`: what keeps the service running asks for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::NO_STORE;
use crate::app::App;
use crate::error::Refusal;

/// A store that takes longer than this to say anything is not ready.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// `GET /livez`
pub(crate) async fn livez() -> Response {
    ([NO_STORE], "ok\n").into_response()
}

/// `GET /readyz`
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    if *app.closing.borrow() {
        return Err(Refusal::Unavailable);
    }
    match tokio::time::timeout(STORE_TIMEOUT, app.store.ping()).await {
        Ok(Ok(())) => Ok(([NO_STORE], "ok\n").into_response()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Refusal::Unavailable),
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    for (store, state) in app.store.breakers() {
        app.metrics.breaker(&store, state);
    }
    app.heartbeats.show(app.host.now().monotonic);
    let text = app.metrics.text().ok_or(Refusal::Internal)?;
    Ok(([NO_STORE, (header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}
