//! Guards the keys of this process: opens what is sealed, has signing keys follow each other, and withdraws one.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64ct::{Base64UrlUnpadded, Encoding};
use tokio::sync::Mutex;
use tollgate_shared::id::KeyId;
use tollgate_shared::time::UnixSeconds;
use tollgate_shared::token::SigningKey;
use zeroize::Zeroizing;

use crate::app::App;
use crate::clock::{Host, random};
use crate::config::Settings;
use crate::keys::{FEED_KEY_FILE, KeyError, create_private_dir, read_private, read_seed};
use crate::signing_keys::{
    AdoptError, EncryptionKeys, KeyRecord, KeyRecordError, KeyRow, KeyRowFault, KeyView, KeyViewError, Label,
    Moment, NewKey, Rotation, Schedule, SealError, ServerSecret, SigningKeys, adopted_key,
    forget_adopted_file, open_encryption_keys,
};
use crate::store::{KeyChange, Store, StoreError};

const SERVER_SECRET: &str = "server";
const FEED_KEY: &str = "feed";
/// How often is tried again when another process changed the keys meanwhile.
const TRIES_MAX: u32 = 8;

/// The keys of this process.
#[derive(Debug)]
pub struct Keyring {
    /// Signs the feed.
    pub feed: Arc<SigningKey>,
    /// Sign tokens.
    pub signing: SigningKeys,
    /// Held while they are changed: or what was read before another's change could take the place of that change.
    changing: Mutex<()>,
    encryption: EncryptionKeys,
    refresh: Derived,
    shared_cache: Derived,
    throttle: Derived,
    requests: Derived,
    serving_since: UnixSeconds,
}

/// A secret of one purpose. It prints nothing of itself.
#[derive(Clone)]
struct Derived(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Derived {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Derived(…)")
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A file.
    #[error(transparent)]
    File(#[from] KeyError),
    /// The signing key of an earlier release.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// What is sealed.
    #[error("sealed secret `{name}`: {error}")]
    Sealed {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        error: SealError,
    },
    /// A new key.
    #[error(transparent)]
    Record(#[from] KeyRecordError),
    /// A row.
    #[error(transparent)]
    Row(#[from] KeyRowFault),
    /// The rows together.
    #[error(transparent)]
    View(#[from] KeyViewError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key could not be made.
    #[error("a signing key could not be made")]
    Task,
    /// There is no such key, or it has ended.
    #[error("there is no published signing key of this name")]
    Missing,
}

impl Keyring {
    /// Opens the keys, and makes those that are not there. Keys of earlier releases, which are files in the data folder,
    /// are taken over.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub async fn open(
        store: &Store,
        settings: &Settings,
        host: &Arc<dyn Host>,
    ) -> Result<Self, KeyringError> {
        let data_dir = settings.data_dir.as_path();
        create_private_dir(data_dir)?;
        let encryption = open_encryption_keys(&settings.keys, data_dir, &**host)?;
        let feed = open_feed_key(store, settings, &encryption, &**host).await?;
        let secret = open_server_secret(store, &encryption, &**host).await?;
        let derived = |purpose| {
            let sealed_error = |error| KeyringError::Sealed { name: SERVER_SECRET, error };
            secret.derive(purpose).map(Derived).map_err(sealed_error)
        };
        let (refresh, shared_cache) = (derived("refresh tokens")?, derived("shared cache")?);
        let throttle = derived("throttle")?;
        let requests = derived("requests")?;
        let now = host.seconds();
        let adopted = adopted_key(data_dir, &encryption, settings.token.lifetime_seconds, &**host, now)?;
        let schedule = settings.keys.schedule(settings.token);
        let moment = Moment { now, serving_since: now };
        let view = change(store, &encryption, &schedule, moment, host, &Intent::Open(adopted)).await?.0;
        seal_anew(store, &encryption, now, host).await?;
        forget_adopted_file(data_dir)?;
        let signing = SigningKeys::new(view);
        let changing = Mutex::default();
        let serving_since = now;
        Ok(Self {
            feed: Arc::new(feed),
            signing,
            changing,
            encryption,
            refresh,
            shared_cache,
            throttle,
            requests,
            serving_since,
        })
    }

    /// Derives refresh tokens from the ones before them.
    #[must_use]
    pub fn refresh_key(&self) -> &[u8; 32] {
        &self.refresh.0
    }

    /// Seals what replicas share in Redis.
    #[must_use]
    pub fn shared_cache_key(&self) -> &Zeroizing<[u8; 32]> {
        &self.shared_cache.0
    }

    /// Hides names and addresses in counters: the same for all replicas.
    #[must_use]
    pub fn throttle_key(&self) -> Zeroizing<[u8; 32]> {
        self.throttle.0.clone()
    }

    /// The digest of a request. It takes a secret to make one, because a request may hold a password that can be guessed.
    #[must_use]
    pub fn request_digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.requests.0.as_slice());
        let mut context = hmac::Context::with_key(&key);
        for part in parts {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        digest
    }

    /// Seals an answer that may hold a secret, for the operator and the key that it is the answer to.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal_answer(&self, of: &str, body: &[u8], host: &dyn Host) -> Result<Vec<u8>, SealError> {
        self.encryption.seal(Label::Answer(of), body, host)
    }

    /// Opens an answer that was sealed for the same.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open_answer(&self, of: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.encryption.open(Label::Answer(of), sealed)
    }

    /// The feed key's public half in base64url, with which filters are configured.
    #[must_use]
    pub fn trust_anchor(&self) -> String {
        Base64UrlUnpadded::encode_string(&self.feed.public_bytes())
    }
}

impl App {
    /// Does what the schedule of the keys says, and takes over what other processes did.
    ///
    /// # Errors
    /// See [`KeyringError`]; the keys in force stay.
    pub async fn rotate_keys(&self) -> Result<(), KeyringError> {
        self.change_keys(&Intent::Rotate).await
    }

    /// Withdraws a signing key everywhere: it is published no more, edges refuse what it signed, and the next one signs.
    ///
    /// # Errors
    /// [`KeyringError::Missing`] when there is no such key.
    pub async fn withdraw_key(&self, key: &KeyId, reason: &str, actor: &str) -> Result<(), KeyringError> {
        let (reason, actor) = (reason.to_owned(), actor.to_owned());
        self.change_keys(&Intent::Withdraw { key: key.clone(), reason, actor }).await
    }

    async fn change_keys(&self, intent: &Intent) -> Result<(), KeyringError> {
        let _alone = self.keys.changing.lock().await;
        let schedule = self.settings.keys.schedule(self.settings.token);
        // The feed's clock: it does not go back, also when the date is set.
        let moment = Moment { now: self.feed.now().seconds(), serving_since: self.keys.serving_since };
        let Keyring { encryption, signing, .. } = &self.keys;
        let (view, position) = change(&self.store, encryption, &schedule, moment, &self.host, intent).await?;
        if view.jwks != signing.view().jwks || view.active() != signing.view().active() {
            tracing::info!(active = view.active().as_str(), "signing keys changed");
            signing.replace(view);
        }
        if let Some(position) = position {
            self.feed.reached(position);
        }
        Ok(())
    }
}

/// What is to be done with the keys.
#[derive(Debug)]
enum Intent {
    /// What is due, and this key taken over if there is none yet.
    Open(Option<KeyRecord>),
    /// What is due.
    Rotate,
    /// This key withdrawn.
    Withdraw { key: KeyId, reason: String, actor: String },
}

type Changed = (KeyView, Option<tollgate_shared::revocation::Position>);

/// Changes the keys. Those that have to be made are made before the transaction: an RSA key takes a good part of a second.
async fn change(
    store: &Store,
    encryption: &EncryptionKeys,
    schedule: &Schedule,
    moment: Moment,
    host: &Arc<dyn Host>,
    intent: &Intent,
) -> Result<Changed, KeyringError> {
    let mut made: Vec<KeyRecord> = Vec::new();
    let mut tries = 0;
    loop {
        // What would be done now, to know what has to be made for it.
        let records = read(store.signing_keys().await?)?;
        if let Attempt::Lacks(kind) = attempt(records, &made, schedule, moment, intent)? {
            let (encryption, host, now) = (encryption.clone(), Arc::clone(host), moment.now);
            let make = move || KeyRecord::generate(kind, &encryption, &*host, now);
            made.push(tokio::task::spawn_blocking(make).await.map_err(|_| KeyringError::Task)??);
            continue;
        }
        let result = store
            .change_signing_keys(moment.now, |rows| {
                let records = read(rows).map_err(|_| StoreError::Corrupt("signing_keys"))?;
                match attempt(records, &made, schedule, moment, intent) {
                    Ok(Attempt::Done(rotation)) => Ok(written(&rotation, encryption, intent)?),
                    // Somebody came between; the next round makes what is lacking.
                    Ok(Attempt::Lacks(_)) => Err(StoreError::Changed),
                    Err(_) => Err(StoreError::Missing),
                }
            })
            .await;
        match result {
            Err(StoreError::Changed) if tries < TRIES_MAX => tries += 1,
            Err(StoreError::Missing) => return Err(KeyringError::Missing),
            Err(error) => return Err(error.into()),
            Ok(position) => {
                let view = KeyView::of(&read(store.signing_keys().await?)?, encryption)?;
                return Ok((view, position));
            }
        }
    }
}

/// Seals the private keys under the first key-encryption key that another one seals, so that the other can go.
async fn seal_anew(
    store: &Store,
    encryption: &EncryptionKeys,
    now: UnixSeconds,
    host: &Arc<dyn Host>,
) -> Result<(), KeyringError> {
    let anew = |rows: Vec<KeyRow>| -> Result<(Vec<KeyRow>, String), KeyringError> {
        let records = read(rows)?;
        let jwks = KeyView::of(&records, encryption)?.jwks;
        let mut changed = Vec::new();
        for record in &records {
            changed.extend(record.resealed(encryption, &**host)?.as_ref().map(KeyRow::from));
        }
        Ok((changed, jwks))
    };
    if anew(store.signing_keys().await?)?.0.is_empty() {
        return Ok(());
    }
    store
        .change_signing_keys(now, |rows| {
            let (rows, jwks) = anew(rows).map_err(|error| {
                tracing::error!(%error, "signing keys");
                StoreError::Corrupt("signing_keys")
            })?;
            Ok(KeyChange { rows, jwks, withdrawn: None })
        })
        .await?;
    Ok(())
}

enum Attempt {
    Done(Rotation),
    Lacks(NewKey),
}

/// What the keys become, out of keys that were made before; or which one is lacking for it.
fn attempt(
    mut records: Vec<KeyRecord>,
    made: &[KeyRecord],
    schedule: &Schedule,
    moment: Moment,
    intent: &Intent,
) -> Result<Attempt, KeyringError> {
    let mut adopted = None;
    if let (Intent::Open(Some(record)), true) = (intent, records.is_empty()) {
        adopted = Some(record.id.clone());
        records.push(record.clone());
    }
    let mut left = made.to_vec();
    let make = |kind: NewKey| match left.iter().position(|record| record.algorithm == kind.algorithm()) {
        Some(place) => Ok(left.remove(place)),
        None => Err(kind),
    };
    let rotation = match intent {
        Intent::Open(_) | Intent::Rotate => Rotation::due(records, schedule, moment, make),
        Intent::Withdraw { key, .. } => {
            match Rotation::without(records, key, schedule, moment, make).transpose() {
                Some(rotation) => rotation,
                None => return Err(KeyringError::Missing),
            }
        }
    };
    Ok(match rotation {
        Ok(mut rotation) => {
            rotation.changed.extend(adopted);
            Attempt::Done(rotation)
        }
        Err(kind) => Attempt::Lacks(kind),
    })
}

fn written(
    rotation: &Rotation,
    encryption: &EncryptionKeys,
    intent: &Intent,
) -> Result<KeyChange, StoreError> {
    let view = KeyView::of(&rotation.records, encryption).map_err(|error| {
        tracing::error!(%error, "signing keys");
        StoreError::Corrupt("signing_keys")
    })?;
    let withdrawn = match intent {
        Intent::Withdraw { key, reason, actor } => {
            Some((key.as_str().to_owned(), reason.clone(), actor.clone()))
        }
        Intent::Open(_) | Intent::Rotate => None,
    };
    Ok(KeyChange { rows: rotation.changes().map(KeyRow::from).collect(), jwks: view.jwks, withdrawn })
}

fn read(rows: Vec<KeyRow>) -> Result<Vec<KeyRecord>, KeyRowFault> {
    rows.into_iter().map(KeyRecord::try_from).collect()
}

async fn open_feed_key(
    store: &Store,
    settings: &Settings,
    encryption: &EncryptionKeys,
    host: &dyn Host,
) -> Result<SigningKey, KeyringError> {
    let path = settings.data_dir.join(FEED_KEY_FILE);
    let of_file = match read_private(&path) {
        Ok(text) => Some(read_seed(&path, &text)?),
        Err(KeyError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let sealed = store
        .sealed_secret(FEED_KEY, || {
            let seed = match &of_file {
                Some(seed) => seed.clone(),
                None => Zeroizing::new(random::<32>(host)?),
            };
            encryption.seal(Label::FeedKey, seed.as_slice(), host).map_err(|_| StoreError::Corrupt(FEED_KEY))
        })
        .await?;
    let sealed_error = |error| KeyringError::Sealed { name: FEED_KEY, error };
    let opened = encryption.open(Label::FeedKey, &sealed).map_err(sealed_error)?;
    if let Some(anew) = encryption.resealed(Label::FeedKey, &sealed, host).map_err(sealed_error)? {
        store.reseal_secret(FEED_KEY, &anew).await?;
    }
    if of_file.is_some() {
        // It is in the database now, sealed.
        std::fs::remove_file(&path).map_err(|error| KeyError::Io { path, error })?;
    }
    let mut seed = Zeroizing::new([0; 32]);
    if opened.len() != seed.len() {
        return Err(sealed_error(SealError::Format));
    }
    seed.copy_from_slice(&opened);
    Ok(SigningKey::from_seed(&seed))
}

async fn open_server_secret(
    store: &Store,
    encryption: &EncryptionKeys,
    host: &dyn Host,
) -> Result<ServerSecret, KeyringError> {
    let sealed_error = |error| KeyringError::Sealed { name: SERVER_SECRET, error };
    let sealed = store
        .sealed_secret(SERVER_SECRET, || {
            let secret = ServerSecret::generate(host)?;
            secret.sealed(encryption, host).map_err(|_| StoreError::Corrupt(SERVER_SECRET))
        })
        .await?;
    let secret = ServerSecret::open(encryption, &sealed).map_err(sealed_error)?;
    if let Some(anew) = encryption.resealed(Label::ServerSecret, &sealed, host).map_err(sealed_error)? {
        store.reseal_secret(SERVER_SECRET, &anew).await?;
    }
    Ok(secret)
}
