//! Decides who the bearer of a token is: which provider's keys may verify it, and what is passed on to the application.

use tollgate_shared::id::KeyId;
use tollgate_shared::revocation::{FeedState, StatusIndex, TokenFacts};
use tollgate_shared::time::{Monotonic, UnixSeconds};
use tollgate_shared::token::{
    ClaimError, Claims, IgnoredKey, JsonValue, KeyFingerprint, KeySet, LiveToken, SignatureBackend,
    TokenRules, UntrustedToken, VerifyError,
};

use super::credential::Credential;
use super::denial::TokenFault;
use super::refresh::Refresh;
use super::shared_data::SharedData;
use crate::config::{Config, KeySource, Provider, TokenHeader};

/// The providers and what their keys are.
#[derive(Debug)]
pub(super) struct Keyring {
    providers: Vec<Provider>,
    /// The same list that `credential::find` indexes into.
    sources: Vec<TokenHeader>,
}

/// A bearer whose token was verified, ready to be passed on.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) claims: Claims,
    /// Headers for the application.
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// The header the token came in, if it is not to be passed on.
    pub(super) credential_header: Option<String>,
    provider: usize,
    source: usize,
    key: KeyFingerprint,
    key_id: KeyId,
    home: bool,
    index: Option<StatusIndex>,
    rules: TokenRules,
    /// Beyond this it is expired, whatever the wall clock shows then.
    dies_at: Monotonic,
}

/// Why nobody was identified.
#[derive(Debug)]
pub(super) enum Unidentified {
    /// The provider's keys could not be had, or are too old: nobody can tell now.
    NoKeys,
    /// The provider's keys are there, and the one that the token names is not among them.
    UnknownKey { provider: usize, key: KeyId },
    /// The token is no good.
    Fault(TokenFault),
}

impl From<TokenFault> for Unidentified {
    fn from(fault: TokenFault) -> Self {
        Self::Fault(fault)
    }
}

/// Where keys are at this moment.
#[derive(Debug)]
pub(super) struct KeySources<'e, S> {
    pub(super) refresh: Option<&'e Refresh<S>>,
    pub(super) now: Monotonic,
}

impl<S> Clone for KeySources<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for KeySources<'_, S> {}

impl<'e, S: SharedData> KeySources<'e, S> {
    pub(super) fn feed(self) -> Option<&'e FeedState> {
        self.refresh.and_then(Refresh::state)
    }

    fn keys_of<'k>(self, place: usize, provider: &'k Provider) -> Option<&'k KeySet>
    where
        'e: 'k,
    {
        match &provider.keys {
            KeySource::Feed => self.feed().map(|state| &state.keys),
            KeySource::Inline(keys, _) => Some(keys),
            KeySource::Remote(_) => self.refresh.and_then(|refresh| refresh.remote_keys(place, self.now)),
        }
    }
}

impl Keyring {
    pub(super) fn new(config: &Config) -> Self {
        Self { providers: config.providers.clone(), sources: config.token_headers() }
    }

    /// Verifies a token from its first byte.
    pub(super) fn identify(
        &self,
        credential: &Credential<'_>,
        sources: KeySources<'_, impl SharedData>,
        backend: &impl SignatureBackend,
        date: UnixSeconds,
        now: Monotonic,
    ) -> Result<Identity, Unidentified> {
        let token = UntrustedToken::parse(credential.token).map_err(TokenFault::Parse)?;
        let issuer = token.claimed_issuer().unwrap_or_default();
        let (place, provider) =
            self.provider_of(issuer, credential.source).ok_or(TokenFault::UnknownIssuer)?;
        let keys = sources.keys_of(place, provider).ok_or(Unidentified::NoKeys)?;
        let key_id = token.header().key_id.clone();
        let signed = token.verify(keys, &provider.algorithms, backend).map_err(|error| match error {
            VerifyError::UnknownKey => Unidentified::UnknownKey { provider: place, key: key_id.clone() },
            VerifyError::AlgorithmMismatch | VerifyError::AlgorithmNotAllowed | VerifyError::Signature => {
                TokenFault::Verify(error).into()
            }
        })?;
        let live = signed.live(&provider.rules, date).map_err(TokenFault::Claims)?;
        let home = matches!(provider.keys, KeySource::Feed);
        let index = if home {
            Some(status_index(&live.claims).ok_or(TokenFault::Claims(ClaimError::Status))?)
        } else {
            None
        };
        let headers = forwarded(provider, &live)?;
        let LiveToken { mut claims, key, .. } = live;
        // What is passed on is written already; the rest would only fill the cache.
        claims.all = JsonValue::Null;
        let lives_for = claims.expires_at.plus(provider.rules.clock_skew_seconds).0.saturating_sub(date.0);
        let header = self.sources.get(credential.source).filter(|_| !provider.forward);
        Ok(Identity {
            headers,
            credential_header: header.map(|source| source.name.clone()),
            provider: place,
            source: credential.source,
            key,
            key_id,
            home,
            index,
            rules: provider.rules.clone(),
            dies_at: now.plus(lives_for.saturating_mul(1000)),
            claims,
        })
    }

    /// Keys of inline sets that cannot be used, with the provider's name.
    pub(super) fn ignored(&self) -> impl Iterator<Item = (&str, &IgnoredKey)> {
        self.providers.iter().flat_map(|provider| {
            let ignored = match &provider.keys {
                KeySource::Inline(_, ignored) => ignored.as_slice(),
                KeySource::Feed | KeySource::Remote(_) => &[],
            };
            ignored.iter().map(|ignored| (provider.name.as_str(), ignored))
        })
    }

    fn provider_of(&self, issuer: &str, source: usize) -> Option<(usize, &Provider)> {
        let header = self.sources.get(source)?;
        self.providers.iter().enumerate().find(|(_, provider)| {
            provider.rules.issuer.as_str() == issuer && provider.from_headers.contains(header)
        })
    }
}

impl Identity {
    /// Whether this token came in the same header this time.
    pub(super) fn came_in(&self, credential: &Credential<'_>) -> bool {
        self.source == credential.source
    }

    /// Whether everything but revocation that was true when the signature was checked is true still.
    pub(super) fn still_good(
        &self,
        keyring: &Keyring,
        sources: KeySources<'_, impl SharedData>,
        date: UnixSeconds,
        now: Monotonic,
    ) -> bool {
        let provider = keyring.providers.get(self.provider);
        let keys = provider.and_then(|provider| sources.keys_of(self.provider, provider));
        now < self.dies_at
            && self.claims.in_time(&self.rules, date).is_ok()
            && keys.is_some_and(|keys| keys.holds(self.key))
    }

    /// Fails if the token has been revoked by what `feed` says.
    pub(super) fn not_revoked(&self, feed: Option<&FeedState>) -> Result<(), TokenFault> {
        let Some(feed) = feed else { return Ok(()) };
        let facts = TokenFacts {
            index: self.index,
            key: self.key_id.as_str(),
            claims: &self.claims,
            home: self.home,
        };
        feed.revoked.revokes(facts).map_or(Ok(()), |by| Err(TokenFault::Revoked(by)))
    }
}

/// The index of a token of our own issuer: its status list must be one of that issuer's.
fn status_index(claims: &Claims) -> Option<StatusIndex> {
    let status = claims.status.as_ref()?;
    StatusIndex::from_reference(claims.issuer.as_str(), &status.uri, status.index)
}

fn forwarded(provider: &Provider, live: &LiveToken) -> Result<Vec<(String, Vec<u8>)>, TokenFault> {
    let mut headers = Vec::with_capacity(provider.claim_to_headers.len() + 1);
    for mapping in &provider.claim_to_headers {
        if let Some(value) = live.claims.all.member(&mapping.claim) {
            headers.push((mapping.header.clone(), header_value(value)?));
        }
    }
    if let Some(name) = &provider.forward_payload_header {
        headers.push((name.clone(), live.payload.clone().into_bytes()));
    }
    Ok(headers)
}

/// A claim as a header value. Strings stand as they are, numbers and booleans as in JSON, arrays of those separated by
/// commas. What a header cannot carry without being read as something else refuses the token.
fn header_value(claim: &JsonValue) -> Result<Vec<u8>, TokenFault> {
    let text = match claim {
        JsonValue::List(items) => {
            let items: Vec<String> =
                items.iter().map(scalar).collect::<Option<_>>().ok_or(TokenFault::HeaderValue)?;
            if items.iter().any(|item| item.contains(',') || item.trim() != item || item.is_empty()) {
                return Err(TokenFault::HeaderValue);
            }
            items.join(",")
        }
        JsonValue::Null
        | JsonValue::Bool(_)
        | JsonValue::Unsigned(_)
        | JsonValue::Float(_)
        | JsonValue::Text(_)
        | JsonValue::Object(_) => scalar(claim).ok_or(TokenFault::HeaderValue)?,
    };
    let fits = !text.chars().any(char::is_control) && text.trim() == text;
    if fits { Ok(text.into_bytes()) } else { Err(TokenFault::HeaderValue) }
}

fn scalar(claim: &JsonValue) -> Option<String> {
    match claim {
        JsonValue::Bool(value) => Some(value.to_string()),
        JsonValue::Unsigned(value) => Some(value.to_string()),
        JsonValue::Float(value) => Some(value.to_string()),
        JsonValue::Text(text) => Some(text.clone()),
        JsonValue::Null | JsonValue::List(_) | JsonValue::Object(_) => None,
    }
}
