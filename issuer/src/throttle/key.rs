//! Decides what is counted together: one key for an address, a network, an account, a device.
//!
//! *What comes in:* an address, a username as it was typed, a device. *What goes out:* keyed digests, so that counters hold
//! neither names nor addresses, and an account that exists is counted as one that does not. *What an attacker gains if this
//! is wrong:* fresh counters for every spelling of an address, or a list of names from a copy of the counters.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// A keyed digest, short: nobody can choose what it is without the key.
pub type Digest = [u8; 16];

/// What a key is for. Each kind is counted for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Attempts of one address.
    AddressRate,
    /// Attempts of its network.
    NetworkRate,
    /// All attempts.
    TotalRate,
    /// Failures in a row of one account.
    Account,
    /// Failures in a row of one device.
    Device,
    /// Accounts that failed from one address.
    AddressSeen,
    /// Accounts that failed from one network.
    NetworkSeen,
    /// All accounts that failed.
    TotalSeen,
    /// How often an address was refused for spraying.
    AddressPenalty,
    /// How often a network was.
    NetworkPenalty,
}

impl Kind {
    /// Its name in a store's keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AddressRate => "address-rate",
            Self::NetworkRate => "network-rate",
            Self::TotalRate => "total-rate",
            Self::Account => "account",
            Self::Device => "device",
            Self::AddressSeen => "address-seen",
            Self::NetworkSeen => "network-seen",
            Self::TotalSeen => "total-seen",
            Self::AddressPenalty => "address-penalty",
            Self::NetworkPenalty => "network-penalty",
        }
    }
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What it is for.
    pub kind: Kind,
    /// Of whom.
    pub digest: Digest,
}

impl Key {
    /// The key in a store that others use too. The braces make it one slot of a cluster.
    #[must_use]
    pub fn text(&self) -> String {
        let digest = Base64UrlUnpadded::encode_string(&self.digest);
        format!("tollgate:throttle:{{{}:{digest}}}", self.kind.name())
    }
}

/// The secret that keys are made with. Replicas that share counters must share it.
pub struct KeySecret(Zeroizing<[u8; 32]>);

impl KeySecret {
    /// A secret of these bytes.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(super) fn key(&self, kind: Kind, of: &Digest) -> Key {
        Key { kind, digest: *of }
    }

    /// The account of this name, whether there is one or not. Case and spelling are as they were typed: names that differ
    /// are different accounts.
    pub(super) fn account(&self, username: &str) -> Digest {
        self.digest("account", username.as_bytes())
    }

    pub(super) fn device(&self, device: &[u8]) -> Digest {
        self.digest("device", device)
    }

    pub(super) fn address(&self, source: Source) -> Digest {
        self.digest("address", &source.address)
    }

    pub(super) fn network(&self, source: Source) -> Digest {
        self.digest("network", &source.network)
    }

    fn digest(&self, what: &str, of: &[u8]) -> Digest {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.0) else { return Digest::default() };
        mac.update(what.as_bytes());
        mac.update(&[0]);
        mac.update(of);
        let [first, _] = halves(mac.finalize().into_bytes().into());
        first
    }
}

fn halves(whole: [u8; 32]) -> [Digest; 2] {
    let mut halves = [Digest::default(); 2];
    for (half, part) in halves.iter_mut().zip(whole.chunks_exact(16)) {
        half.copy_from_slice(part);
    }
    halves
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeySecret(…)")
    }
}

/// Where an attempt comes from. Who has an IPv6 address has 2^64 of them, so an address is a /64 and a network a /48; of
/// IPv4 they are an address and a /24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source {
    address: [u8; 9],
    network: [u8; 9],
}

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        // An IPv4 client of a socket for both is written as an IPv6 address; it is the same client.
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self { address: [4, a, b, c, d, 0, 0, 0, 0], network: [4, a, b, c, 0, 0, 0, 0, 0] }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = address.octets();
        Self { address: [6, a, b, c, d, e, f, g, h], network: [6, a, b, c, d, e, f, 0, 0] }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn source(address: &str) -> Source {
        Source::of(address.parse().unwrap())
    }

    #[test]
    fn addresses_and_networks_are_as_wide_as_a_customer_gets() {
        let rows = [
            ("192.0.2.1", "192.0.2.1", true, true),
            ("192.0.2.1", "::ffff:192.0.2.1", true, true),
            ("192.0.2.1", "192.0.2.254", false, true),
            ("192.0.2.1", "192.0.3.1", false, false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true, true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false, true),
            ("2001:db8:1:2::1", "2001:db8:2:2::1", false, false),
            ("4.0.2.1", "0400:201::", false, false),
        ];
        for (one, other, same_address, same_network) in rows {
            let (a, b) = (source(one), source(other));
            assert_eq!(a.address == b.address, same_address, "{one} {other}");
            assert_eq!(a.network == b.network, same_network, "{one} {other}");
        }
    }

    #[test]
    fn digests_differ_by_secret_by_kind_and_by_case() {
        let secret = |byte| KeySecret::new(Zeroizing::new([byte; 32]));
        let digests = [
            secret(1).account("alice"),
            secret(2).account("alice"),
            secret(1).account("Alice"),
            secret(1).device(b"alice"),
            secret(1).address(source("192.0.2.1")),
            secret(1).network(source("192.0.2.1")),
        ];
        assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), digests.len());
        assert_eq!(secret(1).account("alice"), secret(1).account("alice"));
    }

    #[test]
    fn keys_of_a_store_hold_no_name_and_lie_in_one_slot() {
        let secret = KeySecret::new(Zeroizing::new([7; 32]));
        let text = secret.key(Kind::Account, &secret.account("alice")).text();
        let inside = text.strip_prefix("tollgate:throttle:{account:").unwrap().strip_suffix('}').unwrap();
        assert!(inside.len() == 22 && !inside.contains("alice"), "{text}");
        assert_eq!(format!("{secret:?}"), "KeySecret(…)");
    }
}
