//! Decides what operators may do to signing keys.

use tollgate_shared::id::KeyId;

use super::{Actor, Entry, OrderError, named, text};
use crate::app::App;
use crate::audit::Action;
use crate::keyring::KeyringError;

impl App {
    /// Does with the signing keys what is due, now.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn rotate_signing_keys(&self, actor: &Actor) -> Result<(), OrderError> {
        let detail = "what is due".to_owned();
        let entry = Entry { actor, action: Action::KeyActivate, target: "signing keys", detail };
        self.recorded(entry, async { Ok(self.rotate_keys().await?) }).await
    }

    /// Withdraws a signing key that is not to be trusted any more.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn withdraw_signing_key(
        &self,
        kid: &str,
        reason: &str,
        actor: &Actor,
    ) -> Result<(), OrderError> {
        let entry = Entry { actor, action: Action::KeyWithdraw, target: kid, detail: reason.to_owned() };
        let withdrawing = async {
            named("reason", reason)?;
            text("reason", reason)?;
            let key = KeyId::new(kid).ok_or(KeyringError::Missing)?;
            Ok(self.withdraw_key(&key, reason, actor.as_str()).await?)
        };
        self.recorded(entry, withdrawing).await
    }
}
