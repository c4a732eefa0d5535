//! Keeps refresh tokens, by digest, and exchanges each for its child once.

use sqlx::{AnyConnection, Row as _};
use tollgate_shared::time::UnixSeconds;

use super::cutoffs::CutOff;
use super::database::{Database, Lock, Tx};
use super::outbox::Wished;
use super::session_writes::{NewLeaf, end, insert_leaf};
use super::sessions::{EndReason, SessionRecord, StartedSession, TokenLife};
use super::shards::slot_of;
use super::users::{USER_COLUMNS, UserRecord};
use super::{Store, StoreError, signed, unsigned};
use crate::clock::Host;
use crate::session::{Attempt, Leaf, RefreshRefusal, Verdict, judge};

/// How many tokens of a session are known, the current one included. An older one is nothing to us when it comes back: it
/// is refused, and does not end the session.
pub const GENERATIONS_MAX: i64 = 100;

/// A refresh token that is known, as it was presented.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'p> {
    /// Whose it is.
    pub user_id: &'p str,
    /// Its digest.
    pub digest: [u8; 32],
    /// The client that was authenticated.
    pub client: &'p str,
}

/// How it is exchanged.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// For how long a client that lost our answer may ask for it again, in milliseconds.
    pub grace_ms: u64,
    /// How long the session lasts from now without being used, in seconds.
    pub idle_seconds: u64,
    /// How long the access token lives.
    pub life: TokenLife,
    /// What is cut off for the session.
    pub cut_off: CutOff,
    /// An instant before that was read. The access token is dated so: what is cut off after that instant covers it.
    pub asked_at: UnixSeconds,
    /// The user's version that the token's rights are of; any when `None`.
    pub version: Option<u64>,
    /// The nonce of the child.
    pub nonce: [u8; 16],
}

/// A refresh token that is known, with its session and user.
#[derive(Debug, Clone)]
pub struct KnownRefresh {
    /// The session.
    pub session: SessionRecord,
    /// The token.
    pub leaf: Leaf,
    /// The user; `None` when there is none any more.
    pub user: Option<UserRecord>,
}

/// What became of an exchange.
#[derive(Debug, Clone)]
pub enum Rotation {
    /// There is a child, and it is the current one.
    Child {
        /// The session.
        session: SessionRecord,
        /// The nonce of the token that was presented, from which the child follows.
        nonce: [u8; 16],
        /// The dates of the access token that goes with it.
        dates: StartedSession,
    },
    /// It had been used. Its session is ended, and that is to be published.
    Reused {
        /// The session.
        session: SessionRecord,
        /// What is to be published.
        wished: Wished,
    },
    /// It is worth nothing.
    Refused(RefreshRefusal),
}

impl Store {
    /// What is known of a refresh token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refresh_token(
        &self,
        slot: u8,
        digest: [u8; 32],
    ) -> Result<Option<KnownRefresh>, StoreError> {
        let operation = move |database: Database| async move {
            let mut connection = database.readers().acquire().await?;
            let found = find(&mut connection, slot, digest).await?;
            Ok(found.map(|(known, _)| known))
        };
        self.shards.on_slot(slot, operation).await
    }

    /// Exchanges a refresh token for its child, whose digest `derive` makes of the presented one's nonce: the same child
    /// however often it is asked for.
    ///
    /// # Errors
    /// [`StoreError`]; then the token is as it was, or exchanged, and never both.
    pub async fn rotate(
        &self,
        presented: Presented<'_>,
        exchange: Exchange,
        derive: impl Fn(&[u8; 16]) -> [u8; 32] + Send + Sync,
        host: &dyn Host,
    ) -> Result<Rotation, StoreError> {
        let Presented { user_id, digest, client } = presented;
        let (derive, slot) = (&derive, slot_of(user_id));
        let operation = move |database: Database| async move {
            // Whether the slot is here is asked with the token.
            let mut write = database.write(&[Lock::SlotUse(slot), Lock::User(user_id)]).await?;
            // Again, now that nobody else can change it; and it must be this user's, whose lock that is.
            let found = find(&mut write, slot, digest).await?;
            let found = found.filter(|(known, _)| known.session.user_id == user_id);
            let Some((KnownRefresh { session, leaf, user }, nonce)) = found else {
                return Ok(Rotation::Refused(RefreshRefusal::Unknown));
            };
            let began_before = exchange.cut_off.began_before;
            let attempt = Attempt { client, began_before, grace_ms: exchange.grace_ms, now: host.now().wall };
            let verdict = judge(&session.family(), leaf, attempt);
            match verdict {
                Verdict::Refuse(refusal) => return Ok(Rotation::Refused(refusal)),
                Verdict::Reuse => {
                    let wish = end(&mut write, &session.id, EndReason::Reuse, "issuer", host).await?;
                    host.reached("reuse.before_commit");
                    write.commit().await?;
                    host.reached("reuse.committed");
                    let wished = Wished::at(&database, wish.into_iter().collect());
                    return Ok(Rotation::Reused { session, wished });
                }
                Verdict::Rotate | Verdict::Repeat => {}
            }
            let Some(user) = user.filter(|user| !user.user.disabled) else {
                return Ok(Rotation::Refused(RefreshRefusal::User));
            };
            if exchange.version.is_some_and(|version| version != user.version) {
                return Err(StoreError::Changed);
            }
            // The session's end is its tokens' end, too.
            let expires_at_max = exchange.life.expires_at_max.min(session.expires_at);
            let life = TokenLife { expires_at_max, ..exchange.life };
            let dates = StartedSession::dated(exchange.asked_at, exchange.cut_off.issued_before, life);
            let mut generation = signed(session.generation);
            if verdict == Verdict::Rotate {
                generation = generation.saturating_add(1);
                let child = NewLeaf { generation, digest: derive(&nonce), nonce: exchange.nonce };
                exchange_leaf(&mut write, &session, digest, child, host).await?;
            }
            touch(&mut write, &session, generation, dates, exchange.idle_seconds).await?;
            host.reached("rotate.before_commit");
            write.commit().await?;
            host.reached("rotate.committed");
            Ok(Rotation::Child { session, nonce, dates })
        };
        self.shards.on_slot(slot, operation).await
    }
}

/// What is known of the token with this digest, and its nonce: in one statement, which sees one state of the slot and of what
/// is in it. [`StoreError::Moving`] when the slot is not here.
async fn find(
    connection: &mut AnyConnection,
    slot: u8,
    digest: [u8; 32],
) -> Result<Option<(KnownRefresh, [u8; 16])>, StoreError> {
    let statement = format!(
        "SELECT sessions.id, sessions.user_id, client_id, device, scope, sessions.created_at, last_used_at, idle_until, \
         expires_at, sessions.generation, ended_at, refresh_tokens.generation AS leaf, nonce, rotated_at_ms, {USER_COLUMNS} \
         FROM owned_slots LEFT JOIN refresh_tokens ON digest = $1 LEFT JOIN sessions ON sessions.id = session_id \
         LEFT JOIN users ON users.id = sessions.user_id WHERE owned_slots.slot = $2"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(digest.as_slice())
        .bind(i64::from(slot))
        .fetch_optional(connection)
        .await?
        .ok_or(StoreError::Moving)?;
    let (Some(nonce), Some(_)) =
        (row.try_get::<Option<Vec<u8>>, _>("nonce")?, row.try_get::<Option<String>, _>("id")?)
    else {
        return Ok(None);
    };
    let rotated_at: Option<i64> = row.try_get("rotated_at_ms")?;
    let leaf = Leaf {
        generation: unsigned(row.try_get("leaf")?),
        rotated_at: rotated_at.map(|date| tollgate_shared::time::UnixMillis(unsigned(date))),
    };
    let nonce = nonce.try_into().map_err(|_| StoreError::Corrupt("refresh_tokens.nonce"))?;
    let (session, user) = (SessionRecord::from_row(&row)?, UserRecord::from_row(&row)?);
    Ok(Some((KnownRefresh { session, leaf, user }, nonce)))
}

/// Puts the child in the place of its parent. The tokens before them stay, so that they are known when they come back, as
/// far as [`GENERATIONS_MAX`] goes.
async fn exchange_leaf(
    write: &mut Tx,
    session: &SessionRecord,
    parent: [u8; 32],
    child: NewLeaf,
    host: &dyn Host,
) -> Result<(), StoreError> {
    let now = host.now().wall;
    sqlx::query("UPDATE refresh_tokens SET rotated_at_ms = $1 WHERE digest = $2")
        .bind(signed(now.0))
        .bind(parent.as_slice())
        .execute(&mut **write)
        .await?;
    host.reached("rotate.parent_marked");
    insert_leaf(write, &session.id, child, now.seconds()).await?;
    host.reached("rotate.child_written");
    if child.generation >= GENERATIONS_MAX {
        sqlx::query("DELETE FROM refresh_tokens WHERE session_id = $1 AND generation <= $2")
            .bind(&session.id)
            .bind(child.generation - GENERATIONS_MAX)
            .execute(&mut **write)
            .await?;
    }
    Ok(())
}

/// Notes that the session was used, and which generation of its tokens is the current one.
async fn touch(
    write: &mut Tx,
    session: &SessionRecord,
    generation: i64,
    dates: StartedSession,
    idle_seconds: u64,
) -> Result<(), StoreError> {
    let now: UnixSeconds = dates.issued_at;
    sqlx::query(
        "UPDATE sessions SET generation = $5, last_used_at = $1, \
         last_issued_at = CASE WHEN last_issued_at > $1 THEN last_issued_at ELSE $1 END, \
         token_until = CASE WHEN token_until > $2 THEN token_until ELSE $2 END, idle_until = $3 WHERE id = $4",
    )
    .bind(signed(now.0))
    .bind(signed(dates.expires_at.0))
    .bind(signed(now.plus(idle_seconds).0))
    .bind(&session.id)
    .bind(generation)
    .execute(&mut **write)
    .await?;
    Ok(())
}
