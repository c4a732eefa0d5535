//! Decides whether an access token of ours is in force: what edges decide by the feed, decided by the store itself.
//!
//! *What comes in:* text chosen by anyone. *What goes out:* claims that we signed, of a token that is neither over nor
//! revoked. *What an attacker gains if this is wrong:* what the token's user or client may do here.

use tollgate_shared::revocation::{RETENTION_SECONDS, StatusIndex};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{Algorithm, Claims, RustCrypto, TokenRules, UntrustedToken};

use crate::app::App;
use crate::store::{CutOffKeys, StoreError};

/// A token that ended this many seconds ago is still revoked: an edge whose clock is behind would still admit it.
const LATE_SECONDS: u64 = RETENTION_SECONDS;
/// How far ahead of our clock a token of ours may be dated, in seconds: it lies right after a cut-off, and another replica's
/// clock may be ahead.
const SKEW_SECONDS: u64 = 30;

/// A token of ours, whether or not it is in force.
#[derive(Debug, Clone)]
pub struct OwnToken {
    /// What it says.
    pub claims: Claims,
    /// Where its status is.
    pub index: StatusIndex,
}

impl App {
    /// Reads a token that we signed and that ended not long ago, if at all; `None` for everything else.
    #[must_use]
    pub fn own_token(&self, token: &str) -> Option<OwnToken> {
        self.signed_token(token, LATE_SECONDS)
    }

    fn signed_token(&self, token: &str, clock_skew_seconds: u64) -> Option<OwnToken> {
        let rules = TokenRules {
            issuer: self.settings.issuer.clone(),
            audiences: vec![self.settings.audience.clone()],
            accept_access_token: true,
            accept_plain: false,
            require_status: true,
            clock_skew_seconds,
        };
        let untrusted = UntrustedToken::parse(token.as_bytes()).ok()?;
        // While the algorithm is changed, keys of both sign what is in force.
        let algorithms = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];
        let signed = untrusted.verify(&self.keys.signing.view().verifying, &algorithms, &RustCrypto).ok()?;
        let claims = signed.live(&rules, self.host.seconds()).ok()?.claims;
        let status = claims.status.as_ref()?;
        let index = StatusIndex::from_reference(self.settings.issuer.as_str(), &status.uri, status.index)?;
        Some(OwnToken { claims, index })
    }

    /// The same of a token that is in force.
    ///
    /// # Errors
    /// [`StoreError`] when that cannot be known; nobody is to be admitted then.
    pub async fn live_token(&self, token: &str) -> Result<Option<OwnToken>, StoreError> {
        let Some(own) = self.signed_token(token, SKEW_SECONDS) else { return Ok(None) };
        if self.store.is_revoked(own.index, own.claims.token_id.as_str()).await? {
            return Ok(None);
        }
        let OwnToken { claims, .. } = &own;
        let subject = claims.subject.as_str();
        let session = claims.session.as_ref().map(ToString::to_string);
        let client = claims.client.as_ref().map(ToString::to_string);
        let tenant = claims.tenant.as_ref().map(ToString::to_string);
        let keys = CutOffKeys {
            subject,
            client: client.as_deref().unwrap_or_default(),
            tenant: tenant.as_deref(),
            issuer: self.settings.issuer.as_str(),
            session: session.as_deref(),
        };
        let cut_off = self.store.cut_off(keys).await?;
        let issued_at = claims.issued_at.unwrap_or(UnixSeconds(0));
        if cut_off.is_disabled || cut_off.issued_before.is_some_and(|before| issued_at < before) {
            return Ok(None);
        }
        if let Some(session) = &session
            && !self.store.has_session(subject, session, self.host.seconds()).await?
        {
            return Ok(None);
        }
        Ok(Some(own))
    }
}
