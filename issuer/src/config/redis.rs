//! The `[redis]` section: where counters are shared, and how long an answer may take.
//!
//! *What comes in:* URLs with credentials in them. *What goes out:* addresses to connect to. *What an attacker gains if
//! this is wrong:* the password of Redis, from a log or from what `config` prints; so nothing here prints one.

use std::fmt;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::document::{OutOfRange, fault, related, within};
use crate::breaker::BreakerSettings;

/// Where counters are shared.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Which servers.
    pub servers: RedisServers,
    /// For connecting, and for each command.
    pub timeout: Duration,
    /// When it is left alone.
    pub breaker: BreakerSettings,
}

/// Which servers to ask.
#[derive(Clone)]
pub enum RedisServers {
    /// One server.
    Single(ConnectionInfo),
    /// The primary that these sentinels name.
    Sentinel {
        /// Where to ask, with the credentials of the sentinels.
        sentinels: Vec<ConnectionInfo>,
        /// What they call it.
        service: String,
        /// Its credentials; the address in it is not used.
        primary: ConnectionInfo,
    },
    /// The cluster that these are nodes of.
    Cluster(Vec<ConnectionInfo>),
}

impl RedisServers {
    /// The word for it in the settings.
    #[must_use]
    pub fn mode(&self) -> &'static str {
        match self {
            Self::Single(_) => SINGLE,
            Self::Sentinel { .. } => SENTINEL,
            Self::Cluster(_) => CLUSTER,
        }
    }
}

impl fmt::Debug for RedisServers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RedisServers({})", self.mode())
    }
}

/// `[redis]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "each is described where it is used: in `RedisSettings`")]
pub struct RedisDocument {
    /// With `single`, the server. With `sentinel`, the primary: its name in the place of the host, its credentials, and
    /// `rediss` if it speaks TLS. Empty: no Redis.
    pub url: SecretUrl,
    /// With `sentinel`, the sentinels; with `cluster`, some of the nodes.
    pub urls: SecretUrls,
    pub mode: String,
    pub timeout_ms: u64,
    pub failures_to_open: u32,
    pub open_for_ms: u64,
}

impl Default for RedisDocument {
    fn default() -> Self {
        Self {
            url: SecretUrl::default(),
            urls: SecretUrls::default(),
            mode: SINGLE.to_owned(),
            timeout_ms: 250,
            failures_to_open: 3,
            open_for_ms: 2000,
        }
    }
}

impl RedisDocument {
    /// The settings, or `None` when no server is named.
    pub(super) fn checked(&self) -> Result<Option<RedisSettings>, OutOfRange> {
        let Self { url, urls, mode, timeout_ms, failures_to_open, open_for_ms } = self;
        within((10..=60_000).contains(timeout_ms), "redis.timeout_ms", "10 to 60000")?;
        within((1..=1000).contains(failures_to_open), "redis.failures_to_open", "1 to 1000")?;
        within((10..=600_000).contains(open_for_ms), "redis.open_for_ms", "10 to 600000")?;
        let known = [SINGLE, SENTINEL, CLUSTER].contains(&mode.as_str());
        within(known, "redis.mode", "\"single\", \"sentinel\" or \"cluster\"")?;
        let one = if url.0.is_empty() { None } else { Some(parsed(&url.0, "redis.url")?) };
        within(urls.0.len() <= URLS_MAX, "redis.urls", "at most 64 URLs")?;
        let several: Vec<ConnectionInfo> =
            urls.0.iter().map(|url| parsed(url, "redis.urls")).collect::<Result<_, _>>()?;
        let servers = match (mode.as_str(), one) {
            (_, None) if several.is_empty() => return Ok(None),
            (SINGLE, Some(one)) => {
                related(several.is_empty(), "redis.urls", "empty when redis.mode is \"single\"")?;
                RedisServers::Single(one)
            }
            (SENTINEL, Some(primary)) => {
                related(!several.is_empty(), "redis.urls", "the sentinels when redis.mode is \"sentinel\"")?;
                let (ConnectionAddr::Tcp(service, _) | ConnectionAddr::TcpTls { host: service, .. }) =
                    primary.addr()
                else {
                    return Err(fault("redis.url", URL));
                };
                let service = service.clone();
                RedisServers::Sentinel { sentinels: several, service, primary }
            }
            (CLUSTER, None) => RedisServers::Cluster(several),
            (CLUSTER, Some(_)) => {
                related(false, "redis.url", "empty when redis.mode is \"cluster\"")?;
                return Ok(None);
            }
            (_, _) => {
                related(false, "redis.url", "a server unless redis.mode is \"cluster\"")?;
                return Ok(None);
            }
        };
        let breaker = BreakerSettings {
            failures_to_open: *failures_to_open,
            open_for_ms: *open_for_ms,
            probes: PROBES,
        };
        Ok(Some(RedisSettings { servers, timeout: Duration::from_millis(*timeout_ms), breaker }))
    }
}

fn parsed(url: &str, key: &'static str) -> Result<ConnectionInfo, OutOfRange> {
    let scheme = url.starts_with("redis://") || url.starts_with("rediss://");
    // A fragment can turn the check of the certificate off.
    within(scheme && !url.contains('#') && url.len() <= URL_BYTES_MAX, key, URL)?;
    url.into_connection_info().map_err(|_| fault(key, URL))
}

/// A URL that may hold a password. It is wiped when dropped, and prints neither user nor password.
#[derive(Clone, Default)]
pub struct SecretUrl(Zeroizing<String>);

impl SecretUrl {
    /// The URL with what stands before the `@` taken out.
    fn shown(&self) -> String {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
            (Some(_), None) => self.0.to_string(),
            (None, _) if self.0.is_empty() => String::new(),
            (None, _) => "…".to_owned(),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretUrl({})", self.shown())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What was written instead is not repeated: it may be a password in the wrong place.
        let toml::Value::String(url) = toml::Value::deserialize(deserializer)? else {
            return Err(serde::de::Error::custom("expected a URL in quotes"));
        };
        Ok(Self(Zeroizing::new(url)))
    }
}

/// Several of them.
#[derive(Clone, Default)]
pub struct SecretUrls(Vec<Zeroizing<String>>);

impl SecretUrls {
    fn shown(&self) -> Vec<String> {
        self.0.iter().map(|url| SecretUrl(url.clone()).shown()).collect()
    }
}

impl fmt::Debug for SecretUrls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretUrls({:?})", self.shown())
    }
}

impl Serialize for SecretUrls {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SecretUrls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = || serde::de::Error::custom("expected a list of URLs in quotes");
        let toml::Value::Array(list) = toml::Value::deserialize(deserializer)? else {
            return Err(expected());
        };
        let url = |value| {
            let toml::Value::String(url) = value else { return Err(expected()) };
            Ok(Zeroizing::new(url))
        };
        list.into_iter().map(url).collect::<Result<_, _>>().map(Self)
    }
}

const SINGLE: &str = "single";
const SENTINEL: &str = "sentinel";
const CLUSTER: &str = "cluster";
const URL: &str = "a URL of redis or rediss, such as redis://user:password@host:6379/0, without a fragment";
const URL_BYTES_MAX: usize = 1024;
const URLS_MAX: usize = 64;
/// One answer is enough to trust it again: a step that fails is made in memory, so a wrong guess costs a timeout.
const PROBES: u32 = 1;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{ConfigError, Document, Flags, Settings};
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        let named = |(name, value): &(&str, &str)| (format!("TOLLGATE_REDIS__{name}"), (*value).to_owned());
        variables.iter().map(named).collect()
    }

    fn load(variables: &[(&str, &str)]) -> Result<Option<RedisSettings>, ConfigError> {
        let settings = Settings::load(None, &environment(variables), &Flags::default());
        settings.map(|settings| settings.redis)
    }

    fn document(variables: &[(&str, &str)]) -> Document {
        Settings::document(None, &environment(variables), &Flags::default()).unwrap()
    }

    #[test]
    fn each_mode_has_its_servers() {
        assert!(load(&[]).unwrap().is_none());
        let single = load(&[("URL", "redis://user:pass@localhost:7000/2")]).unwrap().unwrap();
        let RedisServers::Single(server) = single.servers else { panic!("{:?}", single.servers) };
        assert_eq!(server.addr().to_string(), "localhost:7000");
        assert_eq!(server.redis_settings().db(), 2);
        assert_eq!(server.redis_settings().password(), Some("pass"));

        let sentinel = load(&[
            ("MODE", "sentinel"),
            ("URL", "rediss://user:pass@my-primary/1"),
            ("URLS", r#"["redis://one:26379", "redis://:word@two:26379"]"#),
        ]);
        let servers = sentinel.unwrap().unwrap().servers;
        let RedisServers::Sentinel { sentinels, service, primary } = servers else { panic!("{servers:?}") };
        assert_eq!((sentinels.len(), service.as_str()), (2, "my-primary"));
        assert!(matches!(primary.addr(), ConnectionAddr::TcpTls { .. }));
        let cluster = load(&[("MODE", "cluster"), ("URLS", r#"["redis://one:1", "redis://two:2"]"#)]);
        let servers = cluster.unwrap().unwrap().servers;
        let RedisServers::Cluster(nodes) = servers else { panic!("{servers:?}") };
        assert_eq!(nodes.len(), 2);
    }

    #[test]
    fn what_does_not_fit_the_mode_is_refused() {
        let url = ("URL", "redis://localhost");
        let urls = ("URLS", r#"["redis://localhost"]"#);
        let rows: [(&[(&str, &str)], &str); 9] = [
            (&[("MODE", "many")], "redis.mode"),
            (&[url, urls], "redis.urls"),
            (&[urls], "redis.url"),
            (&[("MODE", "sentinel"), url], "redis.urls"),
            (&[("MODE", "cluster"), url, urls], "redis.url"),
            (&[("URL", "http://localhost")], "redis.url"),
            (&[("URL", "rediss://localhost#insecure")], "redis.url"),
            (&[("URL", "redis://localhost/first")], "redis.url"),
            (&[("TIMEOUT_MS", "1")], "redis.timeout_ms"),
        ];
        for (variables, key) in rows {
            let error = load(variables).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{variables:?}: {error}");
        }
    }

    #[test]
    fn neither_user_nor_password_is_printed() {
        const URL: &str = "redis://user-canary:pass-canary@localhost:7000/2";
        let list = format!("[{URL:?}]");
        let documents = [
            document(&[("URL", URL)]),
            document(&[("MODE", "sentinel"), ("URL", URL), ("URLS", &list)]),
            document(&[("MODE", "cluster"), ("URLS", &list)]),
        ];
        for document in documents {
            let settings = document.checked().ok().unwrap();
            let printed = toml::to_string(&document).unwrap();
            let text = format!("{printed} {document:?} {settings:?}");
            assert!(!text.contains("canary"), "{text}");
            assert!(printed.contains("redis://…@localhost:7000/2"), "{printed}");
        }
        let misplaced: [&[(&str, &str)]; 5] = [
            &[("URL", "pass-canary")],
            &[("URL", "redis://user:pass-canary@")],
            &[("URLS", "\"pass-canary\"")],
            &[("URLS", "[\"pass-canary\"]")],
            &[("MODE", "pass-canary")],
        ];
        for variables in misplaced {
            let error = load(variables).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}
