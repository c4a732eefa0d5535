//! Opens the envelopes of the feed that a VM meets: checks the signature, then decodes.
//!
//! *What comes in:* bytes from the network, or from the board, which any VM of the process wrote. *What goes out:* messages under
//! the issuer's signature. *What an attacker gains if this is wrong:* the token keys, and with them every identity.
//!
//! The leader meets each message twice, from the issuer and then on the board. What it opened last it remembers with its bytes:
//! the same bytes need not be checked again, and other bytes always are.

use tollgate_shared::revocation::FeedMessage;
use tollgate_shared::wire::feed::{FeedDecodeError, TrustAnchor};

/// One VM's way to open envelopes.
#[derive(Debug)]
pub(super) struct Opening {
    anchor: TrustAnchor,
    last: Option<(Vec<u8>, FeedMessage)>,
}

impl Opening {
    pub(super) fn new(anchor: TrustAnchor) -> Self {
        Self { anchor, last: None }
    }

    /// Opens the envelope that this body of so many bytes starts with: see [`TrustAnchor::open_start`].
    ///
    /// # Errors
    /// See [`FeedDecodeError`].
    pub(super) fn open_start<'b>(
        &self,
        start: &'b [u8],
        body_bytes: usize,
    ) -> Result<(FeedMessage, &'b [u8]), FeedDecodeError> {
        self.anchor.open_start(start, body_bytes)
    }

    /// Remembers this envelope until it is opened once more, or another is remembered. It must be the one whose message this is.
    pub(super) fn remember(&mut self, envelope: &[u8], message: FeedMessage) {
        self.last = Some((envelope.to_vec(), message));
    }

    /// Opens an envelope.
    ///
    /// # Errors
    /// See [`FeedDecodeError`].
    pub(super) fn open(&mut self, envelope: &[u8]) -> Result<FeedMessage, FeedDecodeError> {
        match self.last.take_if(|(known, _)| known == envelope) {
            Some((_, message)) => Ok(message),
            None => self.anchor.open_envelope(envelope),
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_shared::revocation::{Delta, Epoch, FeedChange, Position};
    use tollgate_shared::time::UnixMillis;
    use tollgate_shared::token::SigningKey;
    use tollgate_shared::wire::feed::seal;

    use super::*;

    fn message(to: u64) -> FeedMessage {
        let (epoch, to, as_of) = (Epoch([1; 16]), Position(to), UnixMillis(1));
        let change = FeedChange::Delta(Delta::default());
        FeedMessage { epoch, to, head: to, as_of, change, keys: None, plans: None }
    }

    #[test]
    fn only_the_very_bytes_that_were_remembered_are_not_checked_again() {
        let (ours, theirs) = (SigningKey::from_seed(&[3; 32]), SigningKey::from_seed(&[4; 32]));
        let mut opening = Opening::new(TrustAnchor::new(&ours.public_bytes()).unwrap());
        let forged = seal(&message(9), &theirs).unwrap();
        assert_eq!(opening.open(&forged), Err(FeedDecodeError::Signature));
        // What is remembered is given back without a look at the signature: nobody else could open this one.
        opening.remember(&forged, message(9));
        let mut other = forged.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(opening.open(&other), Err(FeedDecodeError::Signature));
        assert_eq!(opening.open(&seal(&message(5), &ours).unwrap()), Ok(message(5)));
        assert_eq!(opening.open(&forged), Ok(message(9)));
        assert_eq!(opening.open(&forged), Err(FeedDecodeError::Signature), "it is given back once");
    }
}
