//! A token as an edge has it, judged by what the feed told that edge.

use tollgate_shared::id::{IssuerId, TokenId};
use tollgate_shared::revocation::{RevokedBy, StatusIndex, TokenFacts};
use tollgate_shared::token::{Claims, UntrustedToken};

use super::*;
use crate::tokens::OwnToken;

#[derive(Clone)]
pub(super) struct Held {
    pub(super) text: String,
    pub(super) claims: Claims,
    pub(super) index: StatusIndex,
    key: String,
    home: bool,
}

impl Bench {
    /// A token that was just issued.
    pub(super) fn held(&self, token: &str) -> Held {
        let OwnToken { claims, index } = self.app.own_token(token).unwrap();
        let key = UntrustedToken::parse(token.as_bytes()).unwrap().header().key_id.to_string();
        Held { text: token.to_owned(), claims, index, key, home: true }
    }

    /// The access token of a new login, and the refresh token with it.
    pub(super) async fn holds(&self, name: &str) -> (Held, String) {
        self.holds_through("first-party", name).await
    }

    /// The same through a public client.
    pub(super) async fn holds_through(&self, client: &str, name: &str) -> (Held, String) {
        let login = json!({ "username": name, "password": PASSWORD, "client_id": client });
        let answer = self.post("/v1/login", None, &login).await.json();
        let text = |member: &str| answer[member].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (self.held(&text("access_token")), text("refresh_token"))
    }

    /// The access token that a client has for itself.
    pub(super) async fn client_holds(&self, authorization: &str) -> Held {
        let answer = self.token(Some(authorization), "grant_type=client_credentials").await;
        assert_eq!(answer.status, StatusCode::OK);
        self.held(answer.json()["access_token"].as_str().unwrap())
    }

    /// What is revoked, as an edge that starts now is told: a snapshot, perhaps of a while ago, and what came since.
    pub(super) async fn told(&self, edge: &str) -> FeedState {
        // The clock stands still here, so what a command committed is not noticed by itself.
        self.app.feed.look().await.unwrap();
        let mut state = None;
        for _ in 0..2 {
            self.poll(edge, &mut state, 0).await;
        }
        state.unwrap()
    }
}

impl Held {
    /// By what it is revoked for an edge with this state.
    pub(super) fn revoked_by(&self, state: &FeedState) -> Option<RevokedBy> {
        let Self { claims, index, key, home, .. } = self;
        state.revoked.revokes(TokenFacts { index: home.then_some(*index), key, claims, home: *home })
    }

    pub(super) fn is_revoked(&self, state: &FeedState) -> bool {
        self.revoked_by(state).is_some()
    }

    /// The same of another issuer.
    pub(super) fn of_issuer(mut self, issuer: &str) -> Self {
        self.claims.issuer = IssuerId::new(issuer).unwrap();
        Self { home: false, ..self }
    }

    /// The same with another id: as edges judge an API key of that id.
    pub(super) fn of_token(mut self, id: &str) -> Self {
        self.claims.token_id = TokenId::new(id).unwrap();
        self
    }

    /// The same, signed by another key.
    pub(super) fn signed_by(self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self }
    }
}
