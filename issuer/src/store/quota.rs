//! Keeps quota accounts: applies one batch of one spender, and what it is answered, in one transaction.

use std::collections::BTreeMap;

use sqlx::Row as _;
use tollgate_shared::quota::allocator::{Account, Allotment, Holding, Terms};
use tollgate_shared::quota::{Bucket, Plan, Window};
use tollgate_shared::time::{UnixMillis, UnixSeconds};
use tollgate_shared::wire::quota::{QuotaAnswer, WireGrant, WireRefusal};

use super::database::{Lock, Tx};
use super::{Store, StoreError, signed, unsigned};
use crate::quota::{Batch, PlanBook, UnitCounts};

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppliedBatch {
    /// It was new. The answer's bytes, and the units it moved.
    New(Vec<u8>, UnitCounts),
    /// It was the last one again; it is answered with the same bytes and changes nothing.
    Repeated(Vec<u8>),
    /// It is older than the last one.
    Stale,
}

/// An account and this spender's share in it, as they are within the transaction.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    account: Account,
    holding: Holding,
}

struct Books {
    write: Tx,
    edge: String,
    epoch: String,
    open: BTreeMap<(String, Window), Standing>,
}

impl Store {
    /// Applies a batch, once.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was applied then.
    pub async fn apply_batch(
        &self,
        batch: &Batch,
        plans: &PlanBook,
        now: UnixMillis,
    ) -> Result<AppliedBatch, StoreError> {
        let limits = &self.plans_wanted(batch, plans).await?;
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Quota]).await?;
                let last =
                    sqlx::query("SELECT sequence, answer FROM quota_answers WHERE edge = $1 AND epoch = $2")
                        .bind(batch.edge.as_str())
                        .bind(&batch.epoch)
                        .fetch_optional(&mut *write)
                        .await?;
                if let Some(last) = last {
                    let sequence: i64 = last.try_get("sequence")?;
                    match signed(batch.sequence).cmp(&sequence) {
                        std::cmp::Ordering::Less => return Ok(AppliedBatch::Stale),
                        std::cmp::Ordering::Equal => {
                            return Ok(AppliedBatch::Repeated(last.try_get("answer")?));
                        }
                        std::cmp::Ordering::Greater => {}
                    }
                }
                let edge = batch.edge.as_str().to_owned();
                let mut books = Books { write, edge, epoch: batch.epoch.clone(), open: BTreeMap::new() };
                let mut counts = UnitCounts::default();
                for usage in &batch.usage {
                    let at = books.position(&usage.bucket, usage.window).await?;
                    at.account.report(&mut at.holding, usage.allowed, usage.denied);
                    counts.allowed = counts.allowed.saturating_add(usage.allowed);
                    counts.denied = counts.denied.saturating_add(usage.denied);
                }
                for given_back in &batch.returns {
                    let at = books.position(&given_back.bucket, given_back.window).await?;
                    at.account.take_back(&mut at.holding, given_back.units);
                }
                let mut answer = QuotaAnswer::default();
                for (wanted, plan) in batch.wants.iter().zip(limits) {
                    let window = Window::containing(now.seconds(), plan.window_seconds);
                    let ends_at = UnixMillis(window.0.plus(plan.window_seconds).0.saturating_mul(1000));
                    let terms = Terms { limit: plan.limit, now, ends_at };
                    let at = books.position(&wanted.bucket, window).await?;
                    let allotment = at.account.lease(&mut at.holding, wanted.want, terms);
                    counts.granted = counts.granted.saturating_add(note(
                        &mut answer,
                        &wanted.bucket,
                        window,
                        plan,
                        terms,
                        allotment,
                    ));
                }
                let bytes = serde_json::to_vec(&answer).map_err(|_| StoreError::Corrupt("quota answer"))?;
                books.close(batch.sequence, &bytes, now.seconds()).await?;
                Ok(AppliedBatch::New(bytes, counts))
            })
            .await
    }

    /// The plans that set the limits of what is wanted: that of the user or client it is of, if it is of one of ours. They are looked up
    /// before the accounts are locked, for the user may be in another database.
    async fn plans_wanted(&self, batch: &Batch, plans: &PlanBook) -> Result<Vec<Plan>, StoreError> {
        let mut wanted = Vec::with_capacity(batch.wants.len());
        let mut known = BTreeMap::new();
        for want in &batch.wants {
            let plan = match plans.own_subject(&want.bucket) {
                Some(subject) => {
                    if !known.contains_key(subject) {
                        known.insert(subject, self.plan_of(subject).await?);
                    }
                    plans.named(known.get(subject).and_then(Option::as_deref))
                }
                None => plans.default_plan(),
            };
            wanted.push(plan);
        }
        Ok(wanted)
    }

    /// The name of the plan of a user, or of a client whose own tokens have its id as their subject.
    async fn plan_of(&self, subject: &str) -> Result<Option<String>, StoreError> {
        if let Some(known) = self.user(subject).await? {
            return Ok(Some(known.user.plan));
        }
        Ok(self.client(subject).await?.map(|(client, _)| client.plan))
    }

    /// Removes the shares of windows that ended long ago and the answers of spenders that are gone. Accounts stay: bills
    /// are made from them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_quota(&self, now: UnixSeconds) -> Result<u64, StoreError> {
        self.home
            .run(move || async move {
                let horizon = signed(now.minus(IDLE_SECONDS_MAX).0);
                let mut write = self.home.write(&[Lock::Quota]).await?;
                let holdings =
                    sqlx::query("DELETE FROM quota_holdings WHERE touched_at < $1 AND window_start < $2")
                        .bind(horizon)
                        .bind(signed(now.minus(WINDOW_AND_IDLE_SECONDS_MAX).0))
                        .execute(&mut *write)
                        .await?;
                let answers = sqlx::query("DELETE FROM quota_answers WHERE answered_at < $1")
                    .bind(horizon)
                    .execute(&mut *write)
                    .await?;
                write.commit().await?;
                Ok(holdings.rows_affected() + answers.rows_affected())
            })
            .await
    }
}

/// A spender that was silent for this long is gone.
const IDLE_SECONDS_MAX: u64 = 2 * 86_400;
/// A window that began this long ago has ended that long ago, however long a plan's windows are.
const WINDOW_AND_IDLE_SECONDS_MAX: u64 = IDLE_SECONDS_MAX + 31 * 86_400;

/// Adds an allotment to the answer; tells how many units were granted.
fn note(
    answer: &mut QuotaAnswer,
    bucket: &Bucket,
    window: Window,
    plan: &Plan,
    terms: Terms,
    allotment: Allotment,
) -> u64 {
    let Plan { name: _, limit, window_seconds } = *plan;
    let bucket = bucket.entries().clone();
    let window = window.0.0;
    let resets_in = terms.ends_at.0.saturating_sub(terms.now.0);
    match allotment {
        Allotment::Lease { units, expires_in, remaining } => {
            answer.grants.push(WireGrant {
                bucket,
                window,
                units,
                expires_in,
                remaining,
                resets_in,
                limit,
                window_seconds,
            });
            units
        }
        Allotment::Refused { ask_again_in } => {
            answer.refusals.push(WireRefusal {
                bucket,
                window,
                resets_in,
                ask_again_in,
                limit,
                window_seconds,
            });
            0
        }
    }
}

impl Books {
    /// The account of this bucket in this window, read when it is first asked for.
    async fn position(&mut self, bucket: &Bucket, window: Window) -> Result<&mut Standing, StoreError> {
        use std::collections::btree_map::Entry;
        match self.open.entry((bucket.canonical(), window)) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(vacant) => {
                let (canonical, _) = vacant.key();
                let account = read_account(&mut self.write, canonical, window).await?;
                let holding =
                    read_holding(&mut self.write, canonical, window, &self.edge, &self.epoch).await?;
                Ok(vacant.insert(Standing { account, holding }))
            }
        }
    }

    async fn close(mut self, sequence: u64, answer: &[u8], now: UnixSeconds) -> Result<(), StoreError> {
        for ((bucket, window), Standing { account, holding }) in &self.open {
            write_account(&mut self.write, bucket, *window, account).await?;
            let Holding { granted, spent, returned } = holding;
            sqlx::query(
                "INSERT INTO quota_holdings (bucket, window_start, edge, epoch, granted, spent, returned, \
                 touched_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (bucket, window_start, edge, epoch) \
                 DO UPDATE SET granted = excluded.granted, spent = excluded.spent, returned = excluded.returned, \
                 touched_at = excluded.touched_at",
            )
            .bind(bucket)
            .bind(signed(window.0.0))
            .bind(&self.edge)
            .bind(&self.epoch)
            .bind(signed(*granted))
            .bind(signed(*spent))
            .bind(signed(*returned))
            .bind(signed(now.0))
            .execute(&mut *self.write)
            .await?;
        }
        sqlx::query(
            "INSERT INTO quota_answers (edge, epoch, sequence, answer, answered_at) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (edge, epoch) DO UPDATE SET sequence = excluded.sequence, answer = excluded.answer, \
             answered_at = excluded.answered_at",
        )
        .bind(&self.edge)
        .bind(&self.epoch)
        .bind(signed(sequence))
        .bind(answer)
        .bind(signed(now.0))
        .execute(&mut *self.write)
        .await?;
        self.write.commit().await?;
        Ok(())
    }
}

async fn read_account(write: &mut Tx, bucket: &str, window: Window) -> Result<Account, StoreError> {
    let row = sqlx::query(
        "SELECT granted, returned, allowed, denied, lease_until_ms FROM quota_accounts \
         WHERE bucket = $1 AND window_start = $2",
    )
    .bind(bucket)
    .bind(signed(window.0.0))
    .fetch_optional(&mut **write)
    .await?;
    let Some(row) = row else { return Ok(Account::default()) };
    Ok(Account {
        granted: unsigned(row.try_get("granted")?),
        returned: unsigned(row.try_get("returned")?),
        allowed: unsigned(row.try_get("allowed")?),
        denied: unsigned(row.try_get("denied")?),
        lease_until: UnixMillis(unsigned(row.try_get("lease_until_ms")?)),
    })
}

async fn write_account(
    write: &mut Tx,
    bucket: &str,
    window: Window,
    account: &Account,
) -> Result<(), StoreError> {
    let Account { granted, returned, allowed, denied, lease_until } = account;
    sqlx::query(
        "INSERT INTO quota_accounts (bucket, window_start, granted, returned, allowed, denied, \
         lease_until_ms) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (bucket, window_start) DO UPDATE SET \
         granted = excluded.granted, returned = excluded.returned, allowed = excluded.allowed, \
         denied = excluded.denied, lease_until_ms = excluded.lease_until_ms",
    )
    .bind(bucket)
    .bind(signed(window.0.0))
    .bind(signed(*granted))
    .bind(signed(*returned))
    .bind(signed(*allowed))
    .bind(signed(*denied))
    .bind(signed(lease_until.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

async fn read_holding(
    write: &mut Tx,
    bucket: &str,
    window: Window,
    edge: &str,
    epoch: &str,
) -> Result<Holding, StoreError> {
    let row = sqlx::query(
        "SELECT granted, spent, returned FROM quota_holdings \
         WHERE bucket = $1 AND window_start = $2 AND edge = $3 AND epoch = $4",
    )
    .bind(bucket)
    .bind(signed(window.0.0))
    .bind(edge)
    .bind(epoch)
    .fetch_optional(&mut **write)
    .await?;
    let Some(row) = row else { return Ok(Holding::default()) };
    Ok(Holding {
        granted: unsigned(row.try_get("granted")?),
        spent: unsigned(row.try_get("spent")?),
        returned: unsigned(row.try_get("returned")?),
    })
}
