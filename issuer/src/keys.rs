//! Guards the files that hold secrets: whoever else could read one may have done so.
//!
//! *What comes in:* files of one secret each. *What goes out:* what is in them, if only their owner could read it. *What an
//! attacker gains if this is wrong:* every identity there is. So a file that others may read is refused, not mended.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};
use zeroize::Zeroizing;

use crate::clock::{EntropyError, Host, random};

pub(crate) const SIGNING_KEY_FILE: &str = "signing.key";
pub(crate) const FEED_KEY_FILE: &str = "feed.key";

/// Why the keys or their folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Others than the owner may read or write it.
    #[error("{}: others may read or write it (mode {mode:04o}); make it 0600 and consider its content known", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("{}: not 32 bytes in base64url", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// A new key could not be made.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Makes a folder that only its owner may look into, unless it is there.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), KeyError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| at(path, error))
}

/// What is in the file of a secret. If there is none, 32 random bytes are put there; of two processes that do so at once, the
/// first one's stay.
pub(crate) fn read_or_make_secret(path: &Path, host: &dyn Host) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    match read_private(path) {
        Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            let secret = Zeroizing::new(random::<32>(host)?);
            let text = Zeroizing::new(Base64UrlUnpadded::encode_string(secret.as_slice()) + "\n");
            match write_private(path, text.as_bytes(), Existing::Stays, host) {
                Err(KeyError::Io { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            read_private(path)
        }
        result => result,
    }
}

/// What is in a file that only its owner may read.
pub(crate) fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mode = fs::metadata(path).map_err(|error| at(path, error))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    fs::read(path).map(Zeroizing::new).map_err(|error| at(path, error))
}

/// The 32 bytes that `text`, read from `path`, spells.
pub(crate) fn read_seed(path: &Path, text: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut seed = Zeroizing::new([0u8; 32]);
    match Base64UrlUnpadded::decode(text.trim_ascii_end(), seed.as_mut_slice()) {
        Ok(decoded) if decoded.len() == 32 => Ok(seed),
        Ok(_) | Err(_) => Err(KeyError::Malformed { path: path.to_owned() }),
    }
}

/// What becomes of a file that is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and writing fails.
    Stays,
    /// It is replaced.
    IsReplaced,
}

/// Writes a file that only its owner may read: whole and durable, or not at all.
///
/// # Errors
/// [`KeyError::Io`], with `AlreadyExists` when the file is there and stays.
pub fn write_private(
    path: &Path,
    content: &[u8],
    existing: Existing,
    host: &dyn Host,
) -> Result<(), KeyError> {
    let suffix = u64::from_le_bytes(random::<8>(host)?);
    let temporary = path.with_extension(format!("{suffix:016x}.tmp"));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        match existing {
            // A link, unlike a rename, fails when the name is taken.
            Existing::Stays => fs::hard_link(&temporary, path)?,
            Existing::IsReplaced => fs::rename(&temporary, path)?,
        }
        // The name is durable only once the folder is.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    let written = write();
    if existing == Existing::Stays || written.is_err() {
        // The content is under its own name by now, or nowhere; a failure to tidy up changes neither.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|error| at(path, error))
}

pub(crate) fn at(path: &Path, error: io::Error) -> KeyError {
    KeyError::Io { path: path.to_owned(), error }
}
