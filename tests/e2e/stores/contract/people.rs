//! Users and their sessions, as the rules have them.

use tollgate_issuer::client::Client;
use tollgate_issuer::clock::random;
use tollgate_issuer::credential::new_id;
use tollgate_issuer::refresh::RefreshToken;
use tollgate_issuer::session::RefreshRefusal;
use tollgate_issuer::store::{
    CutOff, CutOffKeys, Exchange, NewSession, NewUser, Presented, Rotation, Store, TokenLife, User,
    UserChange, slot_of,
};
use tollgate_shared::time::UnixSeconds;

use crate::stores::backend::Backend;

pub(crate) const GRACE_SECONDS: u64 = 10;
pub(crate) const IDLE_SECONDS: u64 = 3_600;
pub(crate) const LASTS_SECONDS: u64 = 36_000;
pub(crate) const LIFE: TokenLife = TokenLife { seconds: 600, expires_at_max: UnixSeconds(4_000_000_000) };
const CHILD_KEY: [u8; 32] = [7; 32];

pub(crate) fn new_user(backend: &Backend, name: &str) -> NewUser {
    let user = User {
        id: new_id("u_", &*backend.host).unwrap(),
        username: name.to_owned(),
        plan: "free".to_owned(),
        roles: vec!["reader".to_owned(), "writer".to_owned()],
        scopes: vec!["read".to_owned()],
        tenant: None,
        disabled: false,
    };
    NewUser { user, password_hash: "$argon2id$first".to_owned() }
}

/// A user, and the client of every session.
pub(crate) async fn add_user(backend: &Backend, store: &Store, name: &str) -> User {
    store.ensure_client(&Client::first_party("free").unwrap(), backend.now()).await.unwrap();
    let new = new_user(backend, name);
    store.add_user(&new, backend.now()).await.unwrap();
    new.user
}

pub(crate) fn change(user: &User) -> UserChange<'_> {
    UserChange { user, password_hash: None, if_version: None, actor: "operator test" }
}

/// A session and its first refresh token.
pub(crate) struct Started {
    pub(crate) id: String,
    pub(crate) token: RefreshToken,
    pub(crate) issued_at: UnixSeconds,
}

pub(crate) async fn start(backend: &Backend, store: &Store, user_id: &str) -> Started {
    let record = store.user(user_id).await.unwrap().unwrap();
    start_with(backend, store, user_id, record.password_changed_at, None).await.unwrap()
}

pub(crate) async fn start_with(
    backend: &Backend,
    store: &Store,
    user_id: &str,
    password_changed_at: UnixSeconds,
    remember_device: Option<[u8; 32]>,
) -> Option<Started> {
    let host = &*backend.host;
    let id = new_id("s_", host).unwrap();
    let token = RefreshToken::generate(slot_of(user_id), host).unwrap();
    let asked_at = backend.now();
    let issuer = "https://issuer.test";
    let keys = CutOffKeys { subject: user_id, client: "first-party", tenant: None, issuer, session: None };
    let cut_off = store.cut_off(keys).await.unwrap();
    let session = NewSession {
        cut_off,
        asked_at,
        event: None,
        id: &id,
        user_id,
        password_changed_at,
        version: None,
        tenant: None,
        client: "first-party",
        device: Some("phone"),
        address: None,
        scope: "read",
        issuer: "https://issuer.test",
        life: LIFE,
        idle_seconds: IDLE_SECONDS,
        lasts_seconds: LASTS_SECONDS,
        refresh: Some((token.digest(), random::<16>(host).unwrap())),
        remember_device,
    };
    let (dates, _) = store.start_session(&session, host).await.unwrap()?;
    Some(Started { id, token, issued_at: dates.issued_at })
}

pub(crate) fn child_digest(token: &RefreshToken, nonce: &[u8; 16]) -> [u8; 32] {
    token.child(&CHILD_KEY, nonce).unwrap().digest()
}

pub(crate) async fn rotate(backend: &Backend, store: &Store, token: &RefreshToken) -> Rotation {
    rotate_as(backend, store, token, "first-party", CutOff::default()).await
}

pub(crate) async fn rotate_as(
    backend: &Backend,
    store: &Store,
    token: &RefreshToken,
    client: &str,
    cut_off: CutOff,
) -> Rotation {
    let host = &*backend.host;
    let nonce = random::<16>(host).unwrap();
    let (grace_ms, idle_seconds, life) = (GRACE_SECONDS * 1000, IDLE_SECONDS, LIFE);
    let exchange =
        Exchange { grace_ms, idle_seconds, life, cut_off, asked_at: backend.now(), version: None, nonce };
    let known = store.refresh_token(token.slot(), token.digest()).await.unwrap();
    let Some(known) = known else { return Rotation::Refused(RefreshRefusal::Unknown) };
    let presented = Presented { user_id: &known.session.user_id, digest: token.digest(), client };
    store.rotate(presented, exchange, |nonce| child_digest(token, nonce), host).await.unwrap()
}

/// The child that a rotation gives; the test fails when it gives none.
pub(crate) async fn child(backend: &Backend, store: &Store, token: &RefreshToken) -> RefreshToken {
    match rotate(backend, store, token).await {
        Rotation::Child { nonce, .. } => token.child(&CHILD_KEY, &nonce).unwrap(),
        other @ (Rotation::Reused { .. } | Rotation::Refused(_)) => panic!("no child: {other:?}"),
    }
}

pub(crate) async fn is_reuse(backend: &Backend, store: &Store, token: &RefreshToken) -> bool {
    matches!(rotate(backend, store, token).await, Rotation::Reused { .. })
}

pub(crate) async fn is_refused(backend: &Backend, store: &Store, token: &RefreshToken) -> bool {
    matches!(rotate(backend, store, token).await, Rotation::Refused(_))
}

/// What is cut off for a user, in whatever way.
pub(crate) async fn cut_off(store: &Store, user_id: &str) -> CutOff {
    let issuer = "https://issuer.test";
    store
        .cut_off(CutOffKeys { subject: user_id, client: "first-party", tenant: None, issuer, session: None })
        .await
        .unwrap()
}

/// How many wishes wait for publication.
pub(crate) async fn wishes(backend: &Backend) -> i64 {
    backend.sum("SELECT COUNT(*) FROM outbox").await
}
