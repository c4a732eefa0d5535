//! Guards the revocations that cover more than one token: everything of a subject, session, client, tenant, key or
//! issuer, and foreign tokens by `jti`.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::time::UnixSeconds;
use crate::token::Claims;

/// The most cut-offs an edge holds. A feed that brings more is refused; see [`super::REVOKED_MAX`].
pub const CUTOFFS_MAX: usize = 200_000;

/// What a cut-off goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// One token, by `jti`: for tokens without a status index.
    Token,
    /// One login, by `sid`.
    Session,
    /// One subject, by `sub`.
    Subject,
    /// One OAuth client, by `client_id`.
    Client,
    /// One tenant, by `tenant`.
    Tenant,
    /// One signing key, by `kid`.
    Key,
    /// All tokens of one issuer, by `iss`.
    Issuer,
}

impl Dimension {
    /// Every dimension, in the order in which a token is checked.
    pub const ALL: [Self; 7] =
        [Self::Token, Self::Session, Self::Subject, Self::Client, Self::Tenant, Self::Key, Self::Issuer];

    /// Its name on the wire, in the API and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Session => "session",
            Self::Subject => "subject",
            Self::Client => "client",
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::Issuer => "issuer",
        }
    }

    /// The dimension of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.name() == name)
    }

    fn value_in<'t>(self, key: &'t str, claims: &'t Claims) -> Option<&'t str> {
        match self {
            Self::Token => Some(claims.token_id.as_str()),
            Self::Session => claims.session.as_ref().map(|id| id.as_str()),
            Self::Subject => Some(claims.subject.as_str()),
            Self::Client => claims.client.as_ref().map(|id| id.as_str()),
            Self::Tenant => claims.tenant.as_ref().map(|id| id.as_str()),
            Self::Key => Some(key),
            Self::Issuer => Some(claims.issuer.as_str()),
        }
    }
}

/// Revokes the tokens that have `value` in `dimension`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cutoff {
    /// What it goes by.
    pub dimension: Dimension,
    /// Whose tokens: those of the issuer with this `iss`, or of the feed's own issuer when `None`.
    pub issuer: Option<String>,
    /// Which one.
    pub value: String,
    /// Only tokens whose `iat` is before this second, and those without `iat`; all of them when `None`.
    pub issued_before: Option<UnixSeconds>,
    /// No token it covers lives beyond this; then it may be forgotten.
    pub until: UnixSeconds,
}

/// What is known of one value of one issuer: the union of its cut-offs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reach {
    issuer: Option<String>,
    issued_before: Option<UnixSeconds>,
    until: UnixSeconds,
}

/// All cut-offs in force. Dimensions without any have no entry, so that the usual empty one costs no look-up.
#[derive(Debug, Clone, Default)]
pub struct Cutoffs {
    by_dimension: BTreeMap<Dimension, BTreeMap<String, Vec<Reach>>>,
    count: usize,
    /// Up to where the present look for expired ones has come; see [`Cutoffs::drop_expired`].
    swept: Option<(Dimension, String)>,
}

/// How far a look for expired ones has come is not part of what is cut off.
impl PartialEq for Cutoffs {
    fn eq(&self, other: &Self) -> bool {
        self.by_dimension == other.by_dimension
    }
}

impl Cutoffs {
    /// Adds a cut-off. With one already there for the same value, the union of both is in force.
    pub fn insert(&mut self, cutoff: Cutoff) {
        let Cutoff { dimension, issuer, value, issued_before, until } = cutoff;
        let reaches = self.by_dimension.entry(dimension).or_default().entry(value).or_default();
        match reaches.iter_mut().find(|known| known.issuer == issuer) {
            Some(known) => known.widen(issued_before, until),
            None => {
                reaches.push(Reach { issuer, issued_before, until });
                self.count += 1;
            }
        }
    }

    /// The first dimension in which a cut-off covers this token; `home` tells whether its issuer is the feed's own.
    #[must_use]
    pub fn covering(&self, key: &str, claims: &Claims, home: bool) -> Option<Dimension> {
        let covered = |dimension: Dimension, values: &BTreeMap<String, Vec<Reach>>| {
            let reaches = values.get(dimension.value_in(key, claims)?)?;
            reaches
                .iter()
                .any(|reach| reach.concerns(claims, home) && reach.covers(claims.issued_at))
                .then_some(dimension)
        };
        self.by_dimension.iter().find_map(|(dimension, values)| covered(*dimension, values))
    }

    /// Forgets cut-offs whose last token expired before `horizon`, among at most `values_max` values: each call goes on where
    /// the one before it stopped, and begins anew after the last. What is forgotten late does no harm; a look at all of
    /// them at once would hold up who waits.
    pub fn drop_expired(&mut self, horizon: UnixSeconds, values_max: usize) {
        let mut left = values_max;
        let mut from = self.swept.take();
        for dimension in Dimension::ALL {
            if from.as_ref().is_some_and(|(swept, _)| dimension < *swept) {
                continue;
            }
            let after = from.take().filter(|(swept, _)| *swept == dimension).map(|(_, value)| value);
            let Some(values) = self.by_dimension.get_mut(&dimension) else { continue };
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut over: Vec<String> = Vec::new();
            let mut last = None;
            for (value, reaches) in values.range_mut::<String, _>((start, Bound::Unbounded)).take(left) {
                left -= 1;
                let before = reaches.len();
                reaches.retain(|reach| reach.until >= horizon);
                self.count -= before - reaches.len();
                if reaches.is_empty() {
                    over.push(value.clone());
                }
                last = Some(value);
            }
            let stopped = last.filter(|_| left == 0).cloned();
            for value in &over {
                values.remove(value);
            }
            if values.is_empty() {
                self.by_dimension.remove(&dimension);
            }
            if left == 0 {
                self.swept = stopped.map(|value| (dimension, value));
                return;
            }
        }
    }

    /// Forgets at most `values_max` values, whatever they are; tells whether there are more.
    pub fn discard(&mut self, values_max: usize) -> bool {
        for _ in 0..values_max {
            let Some(mut values) = self.by_dimension.first_entry() else { break };
            if let Some((_, reaches)) = values.get_mut().pop_first() {
                self.count -= reaches.len();
            }
            if values.get().is_empty() {
                values.remove();
            }
        }
        !self.by_dimension.is_empty()
    }

    /// All cut-offs, each value's of each issuer as one.
    pub fn iter(&self) -> impl Iterator<Item = Cutoff> + '_ {
        self.by_dimension.iter().flat_map(|(dimension, values)| {
            values.iter().flat_map(|(value, reaches)| {
                reaches.iter().map(|Reach { issuer, issued_before, until }| Cutoff {
                    dimension: *dimension,
                    issuer: issuer.clone(),
                    value: value.clone(),
                    issued_before: *issued_before,
                    until: *until,
                })
            })
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Reach {
    fn concerns(&self, claims: &Claims, home: bool) -> bool {
        self.issuer.as_deref().map_or(home, |issuer| issuer == claims.issuer.as_str())
    }

    fn covers(&self, issued_at: Option<UnixSeconds>) -> bool {
        match (self.issued_before, issued_at) {
            (Some(before), Some(issued_at)) => issued_at < before,
            (None, _) | (Some(_), None) => true,
        }
    }

    fn widen(&mut self, issued_before: Option<UnixSeconds>, until: UnixSeconds) {
        self.issued_before = match (self.issued_before, issued_before) {
            (Some(one), Some(two)) => Some(one.max(two)),
            (None, _) | (_, None) => None,
        };
        self.until = self.until.max(until);
    }
}

#[cfg(test)]
mod tests;
