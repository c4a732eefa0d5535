//! Guards the secrets that are files: the key-encryption key, and the signing key of releases before there was a schedule.

use std::fs;
use std::io;
use std::path::Path;

use tollgate_shared::time::UnixSeconds;

use super::private::PrivateKey;
use super::record::{KeyRecord, KeyRecordError, KeyState};
use super::sealed::EncryptionKeys;
use crate::clock::Host;
use crate::config::KeySettings;
use crate::keys::{KeyError, SIGNING_KEY_FILE, at, read_or_make_secret, read_private, read_seed};

/// The key-encryption key of those who configure none.
const ENCRYPTION_KEY_FILE: &str = "encryption.key";

/// Why the signing key of an earlier release cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Its file.
    #[error(transparent)]
    File(#[from] KeyError),
    /// The key.
    #[error("{SIGNING_KEY_FILE}: {0}")]
    Record(#[from] KeyRecordError),
}

/// The key-encryption keys: those of the environment, then those of the file. The first of all seals, so a key moves from the
/// file to the environment, or to a new one, without anything that was sealed being lost.
///
/// A file that is named in the settings has to be there. The one in the data folder is made if there is nothing else; replicas
/// that share a database have to be given one key instead.
///
/// # Errors
/// [`KeyError`] names the file.
pub fn open_encryption_keys(
    settings: &KeySettings,
    data_dir: &Path,
    host: &dyn Host,
) -> Result<EncryptionKeys, KeyError> {
    let default = data_dir.join(ENCRYPTION_KEY_FILE);
    let (path, text) = match (&settings.encryption_key_file, &settings.encryption_keys) {
        (Some(path), _) => (path, Some(read_private(path)?)),
        (None, Some(_)) => (&default, if_there(read_private(&default))?),
        (None, None) => (&default, Some(read_or_make_secret(&default, host)?)),
    };
    let of_file = text.map(|text| {
        let keys = std::str::from_utf8(&text).ok().and_then(|text| EncryptionKeys::parse(text).ok());
        keys.ok_or_else(|| KeyError::Malformed { path: path.clone() })
    });
    match (settings.encryption_keys.clone(), of_file.transpose()?) {
        (Some(given), Some(of_file)) => Ok(given.and(of_file)),
        (Some(keys), None) | (None, Some(keys)) => Ok(keys),
        (None, None) => Err(KeyError::Malformed { path: path.clone() }),
    }
}

/// The record of the key that an earlier release kept in the data folder, as the active one: an upgrade keeps the key, and
/// its age is counted from here. `None` when there is no such file.
///
/// Once the record is committed, [`forget_adopted_file`] removes the file, in which the key is not sealed.
///
/// # Errors
/// See [`AdoptError`].
pub fn adopted_key(
    data_dir: &Path,
    keys: &EncryptionKeys,
    token_seconds: u64,
    host: &dyn Host,
    now: UnixSeconds,
) -> Result<Option<KeyRecord>, AdoptError> {
    let path = data_dir.join(SIGNING_KEY_FILE);
    let Some(text) = if_there(read_private(&path))? else { return Ok(None) };
    let seed = read_seed(&path, &text)?;
    let key = PrivateKey::from_ed25519_seed(&seed).map_err(KeyRecordError::from)?;
    let state = KeyState::Active { published_at: now, since: now };
    let record = KeyRecord::of(&key, state, keys, host, now)?;
    Ok(Some(KeyRecord { token_seconds, ..record }))
}

/// Removes the file of a key that was taken over; nothing when there is none.
///
/// # Errors
/// [`KeyError::Io`].
pub fn forget_adopted_file(data_dir: &Path) -> Result<(), KeyError> {
    let path = data_dir.join(SIGNING_KEY_FILE);
    if_there(fs::remove_file(&path).map_err(|error| at(&path, error)))?;
    Ok(())
}

fn if_there<T>(result: Result<T, KeyError>) -> Result<Option<T>, KeyError> {
    match result {
        Ok(content) => Ok(Some(content)),
        Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
