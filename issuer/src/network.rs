//! Decides from which address a request came: the peer's, or what proxies that are trusted say about it.
//!
//! *What comes in:* the peer's address, and headers chosen by anyone. *What goes out:* one address. *What an attacker gains
//! if this is wrong:* as many guesses of passwords as there are addresses to claim, or the means to have others refused.

use std::net::{IpAddr, Ipv4Addr};

use axum::http::HeaderMap;

/// Networks whose hosts are believed when they say for whom they ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// A network: an address, and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// The peer of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

impl Peer {
    /// The peer of a request that came over no connection.
    pub const NONE: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}

impl TrustedProxies {
    /// Reads networks such as `10.0.0.0/8`, or single addresses; `None` when one is neither.
    #[must_use]
    pub fn parse(texts: &[String]) -> Option<Self> {
        texts.iter().map(|text| Network::parse(text)).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Whether this is a trusted proxy's address.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.covers(address))
    }

    /// For whom a request is: of the addresses in `X-Forwarded-For`, which each proxy adds to at the end, the last that is
    /// not a trusted proxy's own. What stands before that was written by somebody whom nobody vouches for.
    #[must_use]
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.0.to_canonical();
        let told = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let addresses: Vec<&str> = told.flat_map(|value| value.split(',')).map(str::trim).collect();
        for text in addresses.iter().rev() {
            if !self.covers(client) {
                break;
            }
            let Ok(address) = text.parse::<IpAddr>() else { break };
            client = address.to_canonical();
        }
        client
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(bits_max);
        (bits <= bits_max).then_some(Self { address, bits })
    }

    fn covers(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<String> = trusted.iter().map(|text| (*text).to_owned()).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let peer = Peer(peer.parse().unwrap());
        TrustedProxies::parse(&trusted).unwrap().client(peer, &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let ours = &["10.0.0.0/8", "fd00::/8"][..];
        for (trusted, peer, forwarded, expected) in [
            (&[][..], "10.0.0.1", &["1.1.1.1"][..], "10.0.0.1"),
            (ours, "203.0.113.9", &["1.1.1.1"], "203.0.113.9"),
            (ours, "10.0.0.1", &[], "10.0.0.1"),
            (ours, "10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            (ours, "10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (ours, "10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.2.3.4"], "1.1.1.1"),
            (ours, "10.0.0.1", &["6.6.6.6", "1.1.1.1"], "1.1.1.1"),
            (ours, "10.0.0.1", &["1.1.1.1, garbage"], "10.0.0.1"),
            (ours, "::ffff:10.0.0.1", &["2001:db8::7"], "2001:db8::7"),
            (ours, "fd00::1", &["2001:db8::7"], "2001:db8::7"),
            (ours, "10.0.0.1", &["10.0.0.2"], "10.0.0.2"),
        ] {
            assert_eq!(client(trusted, peer, forwarded), expected, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "example.com", "10.0.0.0/-1"] {
            assert_eq!(TrustedProxies::parse(&[text.to_owned()]), None, "{text}");
        }
    }
}
