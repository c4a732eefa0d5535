//! What people, edges and those who keep the service running call.

use axum::http::Method;
use tollgate_shared::wire::feed;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::schemas::{QuotaAnswerSchema, QuotaBatchSchema, StatusListsSchema};
use super::{Description, JSON, describe, number_parameter, query};
use crate::routes::edge::heartbeat::{HeartbeatAnswer, HeartbeatBody};
use crate::routes::edge::{KeyBody, PrincipalAnswer};
use crate::routes::login::{LoginAnswer, LoginBody};
use crate::routes::sessions::OwnSessionsAnswer;
use crate::routes::status::STATUS_LIST;

const METADATA: [(&str, &str, &str, &str); 3] = [
    (
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/{*path}",
        "authorizationServer",
        "Authorization server metadata (RFC 8414)",
    ),
    (
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/{*path}",
        "openidConfiguration",
        "OpenID Connect discovery",
    ),
    (
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/{*path}",
        "protectedResource",
        "Protected resource metadata (RFC 9728)",
    ),
];
const METADATA_OF_PATH: [&str; 3] =
    ["authorizationServerOfPath", "openidConfigurationOfPath", "protectedResourceOfPath"];

#[rustfmt::skip]
pub(super) fn descriptions() -> Vec<Description> {
    let epoch = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{32}$"));
    let apart = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["apart"]));
    let mut all = vec![
        describe(Method::POST, "/v1/login", "logIn", "Log in").takes::<LoginBody>().gives::<LoginAnswer<'_>>(200)
            .and(&[401, 429, 503]),
        describe(Method::POST, "/v1/logout", "logOut", "End this session"),
        describe(Method::POST, "/v1/logout-all", "logOutAll", "End all sessions of the caller"),
        describe(Method::GET, "/v1/sessions", "listSessions", "List the caller's sessions").gives::<OwnSessionsAnswer>(200),
        describe(Method::DELETE, "/v1/sessions/{id}", "endSession", "End one of the caller's sessions"),
        describe(Method::GET, "/v1/edge/feed", "readFeed", "Read the feed, or wait for something new")
            .asks(query("epoch", "The history that the edge has", epoch))
            .asks(number_parameter("after", "Up to where the edge has it"))
            .asks(number_parameter("wait", "For how long to wait, in seconds"))
            .asks(number_parameter("until", "Where what is new is to end at the latest"))
            .asks(number_parameter("least", "Before which position everything is of no use"))
            .asks(query("pieces", "`apart`: a snapshot that is large comes without its pieces", apart))
            .gives_media(&[feed::MEDIA_TYPE]),
        describe(Method::GET, "/v1/edge/history/{epoch}/{from}", "readSegment", "Read 1024 positions of the feed, which never change")
            .gives_media(&[feed::MEDIA_TYPE]).tagged().and(&[304, 404]),
        describe(Method::GET, "/v1/edge/snapshot/{id}/{piece}", "readPieces", "Read pieces of a snapshot of which the head was read, from this one on")
            .gives_media(&[feed::PIECES_MEDIA_TYPE]).tagged().and(&[304, 404]),
        describe(Method::POST, "/v1/edge/heartbeat", "reportHeartbeat", "Say what a process of this edge enforces")
            .takes::<HeartbeatBody>().gives::<HeartbeatAnswer>(200),
        describe(Method::POST, "/v1/edge/quota", "reportQuota", "Report use, and ask for more")
            .takes::<QuotaBatchSchema>().gives::<QuotaAnswerSchema>(200).and(&[409]),
        describe(Method::POST, "/v1/edge/keys/resolve", "resolveKey", "Ask for whom an API key speaks")
            .takes::<KeyBody>().gives::<PrincipalAnswer>(200),
        describe(Method::GET, "/.well-known/jwks.json", "jwks", "The keys that tokens are checked with")
            .gives_media(&["application/jwk-set+json"]).tagged().and(&[304]),
        describe(Method::GET, "/v1/status", "listStatusLists", "The status lists there are (Token Status List draft)")
            .gives::<StatusListsSchema>(200).tagged().and(&[304, 503]),
        describe(Method::GET, "/v1/status/{list}", "statusList", "Which tokens of a status list were revoked. Lists of the past are not kept")
            .gives_media(&[STATUS_LIST]).tagged().and(&[304, 400, 406, 501, 503]),
        describe(Method::GET, "/openapi.json", "openapi", "This document").gives_media(&[JSON]).tagged().and(&[304]),
        describe(Method::GET, "/livez", "live", "Whether the process lives").gives_media(&["text/plain; charset=utf-8"]),
        describe(Method::GET, "/readyz", "ready", "Whether the service can answer")
            .gives_media(&["text/plain; charset=utf-8"]).and(&[503]),
        describe(Method::GET, "/metrics", "metrics", "What is counted")
            .gives_media(&["application/openmetrics-text; version=1.0.0; charset=utf-8"]),
    ];
    for ((path, of_path, id, summary), id_of_path) in METADATA.into_iter().zip(METADATA_OF_PATH) {
        let one = |path, id| {
            describe(Method::GET, path, id, summary).gives_media(&[JSON]).tagged().and(&[304, 404])
        };
        all.extend([one(path, id), one(of_path, id_of_path)]);
    }
    all
}
