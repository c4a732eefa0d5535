//! Keeps by what tokens have to be dated and which sessions are over: the cut-offs of our own tokens, one row for each.

use sqlx::Row as _;
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;

use super::database::Tx;
use super::{Store, StoreError, signed, unsigned};

/// What is cut off for somebody, as of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CutOff {
    /// Access tokens dated before this are revoked.
    pub issued_before: Option<UnixSeconds>,
    /// Sessions that began before this are over.
    pub began_before: Option<UnixSeconds>,
    /// Whether the client is disabled or gone, or the tenant or that of the client disabled: nothing is issued then. Whatever is disabled after
    /// this instant comes with a cut-off that is later than it.
    pub is_disabled: bool,
    /// The version of the client; `None` when it is disabled or gone.
    pub client_version: Option<u64>,
}

/// By what a token can be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutOffKeys<'k> {
    /// `sub`
    pub subject: &'k str,
    /// `client_id`
    pub client: &'k str,
    /// `tenant`
    pub tenant: Option<&'k str>,
    /// `iss`
    pub issuer: &'k str,
    /// `sid`
    pub session: Option<&'k str>,
}

/// Whether a cut-off of tokens is one of sessions as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Tokens only: a right was taken away, and a refresh gives a token without it.
    Tokens,
    /// Sessions too.
    Sessions,
}

impl Store {
    /// The latest cut-offs that concern any of these, and whether anything is issued to them at all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cut_off(&self, keys: CutOffKeys<'_>) -> Result<CutOff, StoreError> {
        let CutOffKeys { subject, client, tenant, issuer, session } = keys;
        self.home
            .run(move || async move {
                let row = sqlx::query(
                    "SELECT MAX(issued_before) AS issued_before, MAX(began_before) AS began_before, \
                     (SELECT version FROM clients WHERE id = $2 AND disabled = 0) AS client_version, \
                     (SELECT COUNT(*) FROM tenants WHERE disabled = 1 AND (id = $3 OR \
                     id = (SELECT tenant FROM clients WHERE id = $2))) AS disabled_tenants FROM cutoffs WHERE \
                     (dimension = 'subject' AND value = $1) OR (dimension = 'client' AND value = $2) OR \
                     (dimension = 'tenant' AND value = $3) OR (dimension = 'issuer' AND value = $4) OR \
                     (dimension = 'session' AND value = $5)",
                )
                .bind(subject)
                .bind(client)
                .bind(tenant.unwrap_or_default())
                .bind(issuer)
                .bind(session.unwrap_or_default())
                .fetch_one(self.home.readers())
                .await?;
                let date = |date: Option<i64>| date.map(|date| UnixSeconds(unsigned(date)));
                let client_version: Option<i64> = row.try_get("client_version")?;
                let disabled_tenants: i64 = row.try_get("disabled_tenants")?;
                Ok(CutOff {
                    issued_before: date(row.try_get("issued_before")?),
                    began_before: date(row.try_get("began_before")?),
                    is_disabled: client_version.is_none() || disabled_tenants > 0,
                    client_version: client_version.map(unsigned),
                })
            })
            .await
    }

    /// Removes what concerns no session any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_cutoffs(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[]).await?;
                let removed = sqlx::query("DELETE FROM cutoffs WHERE until < $1")
                    .bind(signed(now.0))
                    .execute(&mut *write)
                    .await?;
                write.commit().await?;
                Ok(removed.rows_affected())
            })
            .await
    }
}

/// The date before which this value is cut off so far.
pub(super) async fn issued_before(
    write: &mut Tx,
    dimension: Dimension,
    value: &str,
) -> Result<Option<UnixSeconds>, StoreError> {
    let date: Option<i64> =
        sqlx::query_scalar("SELECT issued_before FROM cutoffs WHERE dimension = $1 AND value = $2")
            .bind(dimension.name())
            .bind(value)
            .fetch_optional(&mut **write)
            .await?;
    Ok(date.map(|date| UnixSeconds(unsigned(date))))
}

/// Cuts off; what is cut off already stays so, also what is by a later date.
pub(super) async fn cut_off(
    write: &mut Tx,
    dimension: Dimension,
    value: &str,
    before: UnixSeconds,
    reach: Reach,
    until: UnixSeconds,
) -> Result<(), StoreError> {
    let began_before = match reach {
        Reach::Tokens => None,
        Reach::Sessions => Some(signed(before.0)),
    };
    sqlx::query(
        "INSERT INTO cutoffs (dimension, value, issued_before, began_before, until) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (dimension, value) DO UPDATE SET \
         issued_before = CASE WHEN excluded.issued_before > cutoffs.issued_before \
         THEN excluded.issued_before ELSE cutoffs.issued_before END, \
         began_before = CASE WHEN excluded.began_before > COALESCE(cutoffs.began_before, 0) \
         THEN excluded.began_before ELSE cutoffs.began_before END, \
         until = CASE WHEN excluded.until > cutoffs.until THEN excluded.until ELSE cutoffs.until END",
    )
    .bind(dimension.name())
    .bind(value)
    .bind(signed(before.0))
    .bind(began_before)
    .bind(signed(until.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}
