//! Decides what an order to revoke everything with a value in a dimension means.

use tollgate_shared::revocation::{Dimension, Position};

use super::{Actor, Entry, OrderError, named, text};
use crate::app::App;
use crate::audit::Action;
use crate::store::RevocationOrder;

impl App {
    /// Revokes what an order says. When this returns, it is published.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn revoke(
        &self,
        dimension: &str,
        value: &str,
        issuer: Option<&str>,
        reason: Option<&str>,
        actor: &Actor,
    ) -> Result<Position, OrderError> {
        // A token may be named by its text instead of its id, and a token is a secret.
        let target = match Dimension::of(dimension) {
            Some(Dimension::Token) | None => "token".to_owned(),
            Some(dimension) => format!("{} {value}", dimension.name()),
        };
        let detail = reason.unwrap_or_default().to_owned();
        let entry = Entry { actor, action: Action::Revocation, target: &target, detail };
        let revoking = async {
            let order = self.revocation_order(dimension, value, issuer, reason)?;
            // It would go on signing, and nobody would believe it. To withdraw it is another order, for who may change keys.
            if let RevocationOrder::Value { dimension: Dimension::Key, issuer: None, value } = &order
                && self.store.signing_keys().await?.iter().any(|key| key.kid == *value)
            {
                return Err(OrderError::OwnKey);
            }
            Ok(self.feed.revoke(&order, reason, actor.as_str()).await?)
        };
        self.recorded(entry, revoking).await
    }

    /// The order to revoke everything with `value` in a dimension. An issuer that is ours is the one meant by none.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub fn revocation_order(
        &self,
        dimension: &str,
        value: &str,
        issuer: Option<&str>,
        reason: Option<&str>,
    ) -> Result<RevocationOrder, OrderError> {
        let dimension = Dimension::of(dimension).ok_or(OrderError::Dimension)?;
        named("value", value)?;
        if let Some(issuer) = issuer {
            named("issuer", issuer)?;
        }
        text("reason", reason.unwrap_or_default())?;
        let ours = self.settings.issuer.as_str();
        // An issuer is named by the value; naming another beside it would cover no token at all.
        let issuer = match (dimension, issuer) {
            (Dimension::Issuer, Some(issuer)) if issuer != value => return Err(OrderError::Name("issuer")),
            (Dimension::Issuer, _) => Some(value),
            (_, issuer) => issuer,
        };
        let issuer = issuer.filter(|issuer| *issuer != ours).map(str::to_owned);
        Ok(RevocationOrder::Value { dimension, issuer, value: value.to_owned() })
    }
}
