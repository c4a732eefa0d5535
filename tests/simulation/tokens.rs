//! Issues real tokens as the issuer does, and knows of each whether it was revoked, and since when that is acknowledged.

use std::collections::BTreeMap;

use tollgate_shared::revocation::{BLOCK_INDICES, Dimension, StatusIndex, list_uri};
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::{AccessToken, IssuedStatus, SigningKey};

use crate::random::Random;

pub(crate) const ISSUER: &str = "https://issuer.test";
pub(crate) const PARTNER: &str = "https://partner.test";
/// How long a token lives, in seconds.
pub(crate) const LIFE_SECONDS: u64 = 15 * 60;
/// So many sessions go on at a time.
const SESSIONS: usize = 12;

/// A token, and what is true of it.
#[derive(Debug)]
pub(crate) struct Token {
    /// The value of the header that carries it.
    pub(crate) header: String,
    pub(crate) issuer: &'static str,
    pub(crate) values: BTreeMap<Dimension, String>,
    pub(crate) index: Option<StatusIndex>,
    pub(crate) issued_at: UnixSeconds,
    pub(crate) expires_at: UnixSeconds,
    /// Whether somebody has begun to revoke it: then it may be refused.
    pub(crate) is_touched: bool,
    /// Since when that is acknowledged, in true milliseconds: then it must be refused.
    pub(crate) acknowledged: Option<u64>,
}

#[derive(Debug, Clone)]
struct Session {
    name: String,
    subject: String,
    client: String,
    tenant: String,
}

/// Everything about tokens that the issuer has in its database.
pub(crate) struct Tokens {
    pub(crate) all: Vec<Token>,
    /// The last of them signs.
    pub(crate) keys: Vec<SigningKey>,
    pub(crate) partner: SigningKey,
    sessions: Vec<Session>,
    /// Later tokens of these values are dated from here on.
    dated_from: BTreeMap<(Dimension, String), UnixSeconds>,
    /// The block that indices are taken of, its expiry, and the next index in it.
    pub(crate) block: Option<(u16, UnixSeconds, u32)>,
    made: u64,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let mut tokens = Self {
            all: Vec::new(),
            keys: vec![SigningKey::from_seed(&[11; 32])],
            partner: SigningKey::from_seed(&[99; 32]),
            sessions: Vec::new(),
            dated_from: BTreeMap::new(),
            block: None,
            made: 0,
        };
        (0..SESSIONS).for_each(|_| tokens.begin_session());
        tokens
    }

    fn begin_session(&mut self) {
        self.made += 1;
        let number = self.made;
        self.sessions.push(Session {
            name: format!("s_{number}"),
            subject: format!("u_{}", number % 7),
            client: format!("c_{}", number % 3),
            tenant: format!("t_{}", number % 2),
        });
    }

    /// The key set that is published.
    pub(crate) fn key_set(&self) -> String {
        let keys: Vec<_> = self.keys.iter().map(SigningKey::public_jwk).collect();
        serde_json::json!({ "keys": keys }).to_string()
    }

    pub(crate) fn add_key(&mut self) {
        let seed = [self.keys.len() as u8 + 11; 32];
        self.keys.push(SigningKey::from_seed(&seed));
    }

    /// Takes the next index of the block that is open; `None` when there is none that is good for a whole life.
    pub(crate) fn next_index(&mut self, now: UnixSeconds) -> Option<(StatusIndex, UnixSeconds)> {
        let (block, expires_at, next) = self.block.as_mut()?;
        if now.plus(LIFE_SECONDS) > *expires_at || *next >= BLOCK_INDICES {
            return None;
        }
        let index = StatusIndex(u32::from(*block) * BLOCK_INDICES + *next);
        *next += 1;
        Some((index, *expires_at))
    }

    /// Issues a token at the date `now` of a replica; `None` when a block must be taken first.
    pub(crate) fn issue(&mut self, now: UnixSeconds, random: &mut Random) -> Option<usize> {
        let Session { name, subject, client, tenant } =
            self.sessions[random.place(self.sessions.len())].clone();
        let (index, expires_at) = self.next_index(now)?;
        self.made += 1;
        let token_id = format!("j_{}", self.made);
        let key = self.keys.last()?;
        let values = BTreeMap::from([
            (Dimension::Token, token_id.clone()),
            (Dimension::Session, name.clone()),
            (Dimension::Subject, subject.clone()),
            (Dimension::Client, client.clone()),
            (Dimension::Tenant, tenant.clone()),
            (Dimension::Key, key.id().as_str().to_owned()),
            (Dimension::Issuer, ISSUER.to_owned()),
        ]);
        let from = values
            .iter()
            .filter_map(|(dimension, value)| self.dated_from.get(&(*dimension, value.clone())).copied());
        let issued_at = from.fold(now, UnixSeconds::max);
        let expires_at = issued_at.plus(LIFE_SECONDS).min(expires_at);
        let (list, bit) = index.list_and_bit();
        let uri = list_uri(ISSUER, list);
        let claims = AccessToken {
            issuer: ISSUER,
            subject: &subject,
            audience: "api",
            client: &client,
            token_id: &token_id,
            issued_at,
            expires_at,
            scope: "",
            roles: &[],
            tenant: Some(&tenant),
            plan: "free",
            session: Some(&name),
            status: IssuedStatus::new(bit, &uri),
        };
        let header = format!("Bearer {}", key.issue(claims).unwrap());
        Some(self.keep(Token {
            header,
            issuer: ISSUER,
            values,
            index: Some(index),
            issued_at,
            expires_at,
            is_touched: false,
            acknowledged: None,
        }))
    }

    /// A token of an issuer that has no status lists here.
    pub(crate) fn issue_by_partner(&mut self, now: UnixSeconds) -> usize {
        self.made += 1;
        let (token_id, subject) = (format!("p_{}", self.made), format!("u_{}", self.made % 5));
        let expires_at = now.plus(LIFE_SECONDS);
        let claims = AccessToken {
            issuer: PARTNER,
            subject: &subject,
            audience: "api",
            client: "theirs",
            token_id: &token_id,
            issued_at: now,
            expires_at,
            scope: "",
            roles: &[],
            tenant: None,
            plan: "free",
            session: None,
            status: IssuedStatus::new(1, "https://partner.test/lists/1"),
        };
        let header = format!("Bearer {}", self.partner.issue(claims).unwrap());
        let values = BTreeMap::from([(Dimension::Token, token_id), (Dimension::Subject, subject)]);
        self.keep(Token {
            header,
            issuer: PARTNER,
            values,
            index: None,
            issued_at: now,
            expires_at,
            is_touched: false,
            acknowledged: None,
        })
    }

    fn keep(&mut self, token: Token) -> usize {
        self.all.push(token);
        self.all.len() - 1
    }

    /// The latest date of a token with this value, and the places of all of them.
    pub(crate) fn covered(
        &self,
        issuer: &str,
        dimension: Dimension,
        value: &str,
    ) -> (UnixSeconds, Vec<usize>) {
        let is_covered = |token: &Token| {
            token.issuer == issuer && token.values.get(&dimension).is_some_and(|known| known == value)
        };
        let covered: Vec<usize> = (0..self.all.len()).filter(|place| is_covered(&self.all[*place])).collect();
        let latest = covered.iter().map(|place| self.all[*place].issued_at).max().unwrap_or_default();
        (latest, covered)
    }

    /// What a cut-off changes for tokens to come: sessions and keys do not come back, of the others tokens are dated later.
    pub(crate) fn cut_off(&mut self, dimension: Dimension, value: &str, before: UnixSeconds) {
        match dimension {
            Dimension::Session => {
                self.sessions.retain(|session| session.name != value);
                while self.sessions.len() < SESSIONS {
                    self.begin_session();
                }
            }
            Dimension::Key => {
                if self.keys.last().is_some_and(|key| key.id().as_str() == value) {
                    self.add_key();
                }
            }
            Dimension::Token => {}
            Dimension::Subject | Dimension::Client | Dimension::Tenant | Dimension::Issuer => {
                let from = self.dated_from.entry((dimension, value.to_owned())).or_default();
                *from = before.max(*from);
            }
        }
    }

    pub(crate) fn touch(&mut self, places: &[usize]) {
        places.iter().for_each(|place| self.all[*place].is_touched = true);
    }

    /// It is acknowledged at this true instant that these are revoked.
    pub(crate) fn acknowledge(&mut self, places: &[usize], at: u64) {
        for place in places {
            self.all[*place].acknowledged.get_or_insert(at);
        }
    }
}
