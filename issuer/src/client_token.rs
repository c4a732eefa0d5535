//! Decides what a client gets for itself: an access token in its own name, and no session (RFC 6749 section 4.4).

use crate::app::App;
use crate::client::Client;
use crate::oauth::scope::Scopes;
use crate::oauth::token_response::TokenResponse;
use crate::sessions::{CutOffReading, SessionError, TokenFacts, lives_for};
use crate::store::{CutOffKeys, StartedSession, StoreError, TokenLife};

impl App {
    /// Everything that a client may for itself: its own scopes and what its roles permit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn scopes_of_client(&self, client: &Client) -> Result<Vec<String>, StoreError> {
        let mut held = client.scopes.clone();
        held.extend(self.role_permissions(&client.roles).await?);
        Ok(held)
    }

    /// A token for a client itself (RFC 6749 section 4.4).
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn client_token(
        &self,
        client: &Client,
        scope: Option<&str>,
    ) -> Result<TokenResponse, SessionError> {
        let id = client.id.as_str();
        let keys = CutOffKeys {
            subject: id,
            client: id,
            tenant: client.tenant.as_deref(),
            issuer: self.settings.issuer.as_str(),
            session: None,
        };
        let CutOffReading { asked_at, cut_off } = self.read_cut_off(keys).await?;
        if cut_off.is_disabled {
            return Err(SessionError::Disabled);
        }
        // After the cut-offs: a role that permits less from now on comes with a cut-off that covers this token.
        let scope = Scopes::granted(scope, &self.scopes_of_client(client).await?)?;
        let taken = self.indices.next().await?;
        let life = TokenLife { seconds: self.lifetime_seconds()?, expires_at_max: taken.expires_at_max };
        let dates = StartedSession::dated(asked_at, cut_off.issued_before, life);
        let facts = TokenFacts {
            subject: id,
            client: id,
            scope: &scope.to_string(),
            roles: &client.roles,
            tenant: client.tenant.as_deref(),
            plan: &client.plan,
            session: None,
        };
        let access_token = self.access_token(facts, dates, taken)?;
        Ok(TokenResponse { access_token, expires_in: lives_for(dates), scope, refresh_token: None })
    }
}
