//! Decides what an order to revoke everything with a value in a dimension means.

use tollgate_shared::revocation::{Dimension, Epoch, Position};
use tollgate_shared::time::UnixSeconds;

use super::secret::has_secret;
use super::{Actor, Entry, OrderError, named, text};
use crate::app::App;
use crate::audit::Action;
use crate::store::RevocationOrder;

/// An order to revoke, as it was given.
#[derive(Debug, Clone, Copy)]
pub struct RevocationWords<'w> {
    /// What it goes by.
    pub dimension: &'w str,
    /// Which one.
    pub value: &'w str,
    /// Whose tokens; ours when `None`.
    pub issuer: Option<&'w str>,
    /// For the record.
    pub reason: Option<&'w str>,
    /// Only what was issued before this second.
    pub issued_before: Option<UnixSeconds>,
}

impl App {
    /// Begins another history of the feed. Every edge takes all there is anew, whatever it had.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn renew_feed(&self, actor: &Actor) -> Result<Epoch, OrderError> {
        let target = self.feed.epoch().to_hex();
        let entry = Entry { actor, action: Action::FeedRenew, target: &target, detail: String::new() };
        self.recorded(entry, async { Ok(self.store.renew_epoch(&*self.host).await?) }).await
    }

    /// Revokes what an order says. When this returns, it is published.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn revoke(&self, words: RevocationWords<'_>, actor: &Actor) -> Result<Position, OrderError> {
        let RevocationWords { dimension, value, issuer, reason, issued_before } = words;
        // A secret in the place of an id is refused, and that is written down without it.
        let target = match Dimension::of(dimension) {
            Some(Dimension::Token) | None => "token".to_owned(),
            Some(dimension) if has_secret(value) => dimension.name().to_owned(),
            Some(dimension) => format!("{} {value}", dimension.name()),
        };
        let reason_text = reason.unwrap_or_default();
        let detail = match issued_before {
            Some(date) => format!("issued before {}: {reason_text}", date.0),
            None => reason_text.to_owned(),
        };
        let entry = Entry { actor, action: Action::Revocation, target: &target, detail };
        let revoking = async {
            let order = self.revocation_order(dimension, value, issuer, reason)?;
            let order = match issued_before {
                Some(date) => earlier(order, date, self.host.seconds())?,
                None => order,
            };
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
        if has_secret(value) {
            return Err(OrderError::Secret);
        }
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

/// The same order, for what was issued before a date only.
fn earlier(
    order: RevocationOrder,
    issued_before: UnixSeconds,
    now: UnixSeconds,
) -> Result<RevocationOrder, OrderError> {
    match order {
        RevocationOrder::Value { dimension, issuer, value } if issued_before <= now => match dimension {
            Dimension::Subject | Dimension::Client | Dimension::Tenant | Dimension::Issuer => {
                Ok(RevocationOrder::Earlier { dimension, issuer, value, issued_before })
            }
            // Of these nothing is spared by its date: none of them comes back.
            Dimension::Token | Dimension::Session | Dimension::Key => Err(OrderError::IssuedBefore),
        },
        RevocationOrder::Value { .. } | RevocationOrder::Earlier { .. } | RevocationOrder::Index(_) => {
            Err(OrderError::IssuedBefore)
        }
    }
}
