//! Decides what a security event is, as the audit log has it: who did what to whom, and how it ended. Never a secret.

use tollgate_shared::time::UnixSeconds;

use crate::clock::{EntropyError, Host, random};

/// What happened. The names are what operators search for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Action {
    Login,
    Logout,
    SessionEnd,
    RefreshReuse,
    Revocation,
    UserCreate,
    UserChange,
    UserDelete,
    UserImport,
    PasswordChange,
    PasswordRehash,
    ClientCreate,
    ClientChange,
    ClientDelete,
    ClientSecret,
    RoleCreate,
    RoleChange,
    RoleDelete,
    TenantCreate,
    TenantChange,
    EdgeCreate,
    EdgeRemove,
    FeedRenew,
    OperatorCreate,
    OperatorRemove,
    KeyGenerate,
    KeyActivate,
    KeyRetire,
    KeyRemove,
    KeyWithdraw,
    Spraying,
    ShardMove,
    UserUnlock,
    ApiKeyCreate,
    ApiKeyRevoke,
    Access,
}

impl Action {
    /// All there are.
    pub const ALL: [Self; 36] = [
        Self::Login,
        Self::Logout,
        Self::SessionEnd,
        Self::RefreshReuse,
        Self::Revocation,
        Self::UserCreate,
        Self::UserChange,
        Self::UserDelete,
        Self::UserImport,
        Self::PasswordChange,
        Self::PasswordRehash,
        Self::ClientCreate,
        Self::ClientChange,
        Self::ClientDelete,
        Self::ClientSecret,
        Self::RoleCreate,
        Self::RoleChange,
        Self::RoleDelete,
        Self::TenantCreate,
        Self::TenantChange,
        Self::EdgeCreate,
        Self::EdgeRemove,
        Self::FeedRenew,
        Self::OperatorCreate,
        Self::OperatorRemove,
        Self::KeyGenerate,
        Self::KeyActivate,
        Self::KeyRetire,
        Self::KeyRemove,
        Self::KeyWithdraw,
        Self::Spraying,
        Self::ShardMove,
        Self::UserUnlock,
        Self::ApiKeyCreate,
        Self::ApiKeyRevoke,
        Self::Access,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Logout => "logout",
            Self::SessionEnd => "session.end",
            Self::RefreshReuse => "refresh.reuse",
            Self::Revocation => "revocation",
            Self::UserCreate => "user.create",
            Self::UserChange => "user.change",
            Self::UserDelete => "user.delete",
            Self::UserImport => "user.import",
            Self::PasswordChange => "password.change",
            Self::PasswordRehash => "password.rehash",
            Self::ClientCreate => "client.create",
            Self::ClientChange => "client.change",
            Self::ClientDelete => "client.delete",
            Self::ClientSecret => "client.secret",
            Self::RoleCreate => "role.create",
            Self::RoleChange => "role.change",
            Self::RoleDelete => "role.delete",
            Self::TenantCreate => "tenant.create",
            Self::TenantChange => "tenant.change",
            Self::EdgeCreate => "edge.create",
            Self::EdgeRemove => "edge.remove",
            Self::FeedRenew => "feed.renew",
            Self::OperatorCreate => "operator.create",
            Self::OperatorRemove => "operator.remove",
            Self::KeyGenerate => "key.generate",
            Self::KeyActivate => "key.activate",
            Self::KeyRetire => "key.retire",
            Self::KeyRemove => "key.remove",
            Self::KeyWithdraw => "key.withdraw",
            Self::Spraying => "spraying",
            Self::ShardMove => "shard.move",
            Self::UserUnlock => "user.unlock",
            Self::ApiKeyCreate => "api-key.create",
            Self::ApiKeyRevoke => "api-key.revoke",
            Self::Access => "access",
        }
    }

    /// The action of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
    /// We failed to do it.
    Failed,
}

impl AuditOutcome {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A security event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Who: `operator NAME`, `user ID`, `client ID`, `issuer`.
    pub actor: String,
    /// What.
    pub action: Action,
    /// To whom or what.
    pub target: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// From where, if it came over the network.
    pub address: Option<String>,
    /// What else there is to say, in a few words. Never what a caller sent as a secret.
    pub detail: String,
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its id; later events have greater ones.
    pub id: String,
    /// When.
    pub at: UnixSeconds,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To whom or what.
    pub target: String,
    /// How it ended.
    pub outcome: String,
    /// From where.
    pub address: Option<String>,
    /// What else there is to say.
    pub detail: String,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only of this action.
    pub action: Option<String>,
    /// Only of this target.
    pub target: Option<String>,
    /// Not before.
    pub since: Option<UnixSeconds>,
    /// Not after.
    pub until: Option<UnixSeconds>,
    /// Only after the event of this id.
    pub after: Option<String>,
}

/// The digits of an id that are its date.
const MILLIS_DIGITS: usize = 12;

/// The longest text in an event, in bytes; what is longer is cut. Nobody fills the log by a long name.
pub const TEXT_BYTES_MAX: usize = 512;

impl AuditEvent {
    /// An event that is done, from nowhere, with nothing more to say.
    #[must_use]
    pub fn done(actor: &str, action: Action, target: &str) -> Self {
        Self {
            actor: bounded(actor),
            action,
            target: bounded(target),
            outcome: AuditOutcome::Done,
            address: None,
            detail: String::new(),
        }
    }

    /// The same with this outcome.
    #[must_use]
    pub fn ended(self, outcome: AuditOutcome) -> Self {
        Self { outcome, ..self }
    }

    /// The same, from there.
    #[must_use]
    pub fn from_address(self, address: Option<std::net::IpAddr>) -> Self {
        Self { address: address.map(|address| address.to_string()), ..self }
    }

    /// The same with this to say.
    #[must_use]
    pub fn saying(self, detail: &str) -> Self {
        Self { detail: bounded(detail), ..self }
    }
}

/// A text without control characters, cut to what is kept.
fn bounded(text: &str) -> String {
    let mut kept = String::new();
    for character in text.chars() {
        let character = if character.is_control() { '\u{fffd}' } else { character };
        if kept.len() + character.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        kept.push(character);
    }
    kept
}

/// A new id: the millisecond it is and 80 random bits, in hex, so that ids sort by date; and after the id `last`, also when
/// the date was set back.
///
/// # Errors
/// [`EntropyError`] when there are no random bytes.
pub fn new_audit_id(last: Option<&str>, host: &dyn Host) -> Result<String, EntropyError> {
    let last = last.and_then(|id| u64::from_str_radix(id.get(..MILLIS_DIGITS)?, 16).ok());
    let millis = host.now().wall.0.max(last.map_or(0, |millis| millis.saturating_add(1)));
    let random = random::<10>(host)?;
    let mut id = format!("{millis:012x}");
    for byte in random {
        id.push_str(&format!("{byte:02x}"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Action::ALL.iter().map(|action| action.name()).collect();
        assert_eq!(names.len(), Action::ALL.len());
        for action in Action::ALL {
            assert_eq!(Action::of(action.name()), Some(action));
        }
    }

    #[test]
    fn what_callers_send_cannot_fill_or_forge_the_log() {
        let event =
            AuditEvent::done("user\nadmin", Action::Login, &"é".repeat(400)).saying("a\r\nb\u{1b}[0m");
        assert_eq!(event.actor, "user\u{fffd}admin");
        assert_eq!(event.target.len(), TEXT_BYTES_MAX);
        assert_eq!(event.detail, "a\u{fffd}\u{fffd}b\u{fffd}[0m");
        let controls = AuditEvent::done("user", Action::Login, &"\n".repeat(600));
        assert!(controls.target.len() <= TEXT_BYTES_MAX, "what they are replaced by is longer");
    }

    #[test]
    fn each_id_comes_after_the_one_before_it() {
        let host = crate::clock::SystemHost::new();
        let first = new_audit_id(None, &host).unwrap();
        let second = new_audit_id(Some(&first), &host).unwrap();
        assert!(second > first);
        let ahead = format!("{:012x}ff", host.now().wall.0 + 3_600_000);
        assert!(new_audit_id(Some(&ahead), &host).unwrap() > ahead, "another's clock is ahead");
    }
}
