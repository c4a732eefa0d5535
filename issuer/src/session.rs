//! Decides what a refresh token is worth: a new one, the same new one again, nothing, or the end of its session.
//!
//! *What comes in:* what is known of the token and of its session, and who presents it. *What goes out:* a verdict. *What
//! an attacker gains if this is wrong:* a session for as long as it may last. A token that was used and comes back is
//! either a client that lost our answer or somebody who has a copy; the two look the same, except that the client comes
//! back soon and nobody has used the answer (RFC 9700 section 4.14.2).

use tollgate_shared::time::{UnixMillis, UnixSeconds};

/// A session, as far as a refresh depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// The client it is bound to.
    pub client: String,
    /// The generation of the refresh token that is current.
    pub generation: u64,
    /// When it began.
    pub began_at: UnixSeconds,
    /// Until when it has to be used again.
    pub idle_until: UnixSeconds,
    /// Its absolute end.
    pub expires_at: UnixSeconds,
    /// Whether it was ended.
    pub ended: bool,
}

/// A refresh token, as far as a refresh depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Its generation; the first has 0.
    pub generation: u64,
    /// When it was exchanged, if it was.
    pub rotated_at: Option<UnixMillis>,
}

/// Who presents it, when, and by which rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// The client that was authenticated.
    pub client: &'a str,
    /// Sessions that began before this are over.
    pub began_before: Option<UnixSeconds>,
    /// For how long a client that lost our answer may ask for it again, in milliseconds.
    pub grace_ms: u64,
    /// The instant it is.
    pub now: UnixMillis,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The token is exchanged for its child.
    Rotate,
    /// The answer was lost: the child that there is, again.
    Repeat,
    /// The token was used before and is not in its grace: the session ends, for whoever has it.
    Reuse,
    /// Nothing.
    Refuse(RefreshRefusal),
}

/// Why a refresh token is worth nothing. The client learns none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshRefusal {
    /// There is no such token.
    Unknown,
    /// It is another client's.
    OtherClient,
    /// The session was ended or cut off.
    Ended,
    /// The session was idle for too long, or lasted as long as it may.
    Expired,
    /// The user is disabled or gone.
    User,
}

/// Judges one presentation of a token.
#[must_use]
pub fn judge(family: &Family, leaf: Leaf, attempt: Attempt<'_>) -> Verdict {
    let Attempt { client, began_before, grace_ms, now } = attempt;
    // First, so that a client that has another's token can do nothing with it, not even end the session.
    if family.client != client {
        return Verdict::Refuse(RefreshRefusal::OtherClient);
    }
    if family.ended || began_before.is_some_and(|before| family.began_at < before) {
        return Verdict::Refuse(RefreshRefusal::Ended);
    }
    let second = now.seconds();
    if second >= family.expires_at || second >= family.idle_until {
        return Verdict::Refuse(RefreshRefusal::Expired);
    }
    if leaf.generation == family.generation {
        return Verdict::Rotate;
    }
    // The parent of the current one: the current one has not been used, or there would be a later one.
    let is_parent = leaf.generation.checked_add(1) == Some(family.generation);
    match leaf.rotated_at {
        Some(rotated_at) if is_parent && now.0.saturating_sub(rotated_at.0) <= grace_ms => Verdict::Repeat,
        Some(_) | None => Verdict::Reuse,
    }
}

#[cfg(test)]
mod tests;
