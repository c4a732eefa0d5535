//! One rule of the route policy: which requests it is for, what they need, and what they cost.

use super::{ConfigError, raw};

/// The most a request may cost, in units.
const COST_MAX: u64 = 1_000_000;
/// The most quotas of one rule.
const QUOTAS_MAX: usize = 4;

/// A rule of the route policy.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which paths it is for.
    pub path: PathMatch,
    /// Which methods, exactly; every method when empty.
    pub methods: Vec<String>,
    /// What it needs.
    pub access: Access,
    /// What it costs, all or nothing.
    pub quotas: Vec<QuotaCharge>,
    /// What happens when the state is older than the soft limit.
    pub when_stale: WhenStale,
}

/// Which paths a rule is for. The query does not count; the path is compared as the host forwards it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path.
    Exact(String),
    /// Every path that starts with this text, as Envoy's `prefix` has it.
    Prefix(String),
    /// Every path of this shape.
    Template(Vec<Segment>),
}

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Text(String),
    /// Any one segment that is not empty; written `*`.
    Any,
    /// The owner of the resource; written `{subject}`.
    Subject,
    /// Everything from here on, also nothing; written `**`, only at the end.
    Rest,
}

/// What a rule needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Nothing: tokens are not looked at.
    Public,
    /// A good token or none; a bad one is refused.
    Optional,
    /// A good token with these rights.
    Required(Requirement),
}

/// The rights a token must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirement {
    /// All of these scopes.
    pub scopes: Vec<String>,
    /// At least one of these roles, if any is named.
    pub roles: Vec<String>,
    /// Who may act on the resource.
    pub owner: Option<Owner>,
}

/// Resource ownership: the path's `{subject}` must be the token's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The role that may act on everyone's resources.
    pub unless_role: Option<String>,
}

/// What a request costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCharge {
    /// The quota's name.
    pub name: String,
    /// Units.
    pub cost: u64,
}

/// What a rule does when the state is older than `stale_after_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenStale {
    /// Refuses at once.
    Deny,
    /// Goes on until `refuse_after_seconds`.
    Grace,
    /// Takes every request for one without a token.
    Anonymous,
}

impl Rule {
    pub(super) fn check(raw: raw::Rule, path: &str, has_origin: bool) -> Result<Self, ConfigError> {
        let at = |key: &str, message: &str| ConfigError::at(format!("{path}.{key}"), message);
        let raw::Rule { matches, requires, quotas, when_stale } = raw;
        let methods = matches.methods.clone().unwrap_or_default();
        if matches.methods.is_some() && methods.is_empty() {
            return Err(at("match.methods", "must name a method, or be left out for all"));
        }
        if methods
            .iter()
            .any(|method| method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()))
        {
            return Err(at("match.methods", "methods are written in capitals"));
        }
        let path_match = PathMatch::check(matches, path)?;
        let access = Access::check(requires, &path_match, path)?;
        let quotas = check_quotas(quotas, &access, path, has_origin)?;
        let when_stale = match when_stale {
            None => WhenStale::Grace,
            Some(_) if !has_origin => return Err(at("when_stale", "needs an `origin`")),
            Some(raw::WhenStale::Deny) => WhenStale::Deny,
            Some(raw::WhenStale::Grace) => WhenStale::Grace,
            Some(raw::WhenStale::Anonymous) if access == Access::Optional => WhenStale::Anonymous,
            Some(raw::WhenStale::Anonymous) => {
                return Err(at("when_stale", "`anonymous` is only for rules with `requires: optional`"));
            }
        };
        Ok(Self { path: path_match, methods, access, quotas, when_stale })
    }
}

impl PathMatch {
    fn check(raw: raw::Match, path: &str) -> Result<Self, ConfigError> {
        let absolute = |text: String, key: &str| {
            let message = "must start with a slash and hold no `?`, `#` or space";
            let fits = text.starts_with('/')
                && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
            if fits { Ok(text) } else { Err(ConfigError::at(format!("{path}.match.{key}"), message)) }
        };
        match (raw.path, raw.prefix, raw.template) {
            (Some(text), None, None) => absolute(text, "path").map(Self::Exact),
            (None, Some(text), None) => absolute(text, "prefix").map(Self::Prefix),
            (None, None, Some(text)) => {
                template(&absolute(text, "template")?, &format!("{path}.match.template")).map(Self::Template)
            }
            _ => Err(ConfigError::at(
                format!("{path}.match"),
                "needs exactly one of path, prefix and template",
            )),
        }
    }

    fn names_subject(&self) -> bool {
        matches!(self, Self::Template(segments) if segments.contains(&Segment::Subject))
    }
}

fn template(text: &str, path: &str) -> Result<Vec<Segment>, ConfigError> {
    let mut segments = Vec::new();
    for part in text.split('/').skip(1) {
        if segments.last() == Some(&Segment::Rest) {
            return Err(ConfigError::at(path, "`**` stands only at the end"));
        }
        segments.push(match part {
            "*" => Segment::Any,
            "**" => Segment::Rest,
            "{subject}" if segments.contains(&Segment::Subject) => {
                return Err(ConfigError::at(path, "`{subject}` stands only once"));
            }
            "{subject}" => Segment::Subject,
            part if part.contains(['*', '{', '}']) => {
                return Err(ConfigError::at(
                    path,
                    "knows `*`, `**` and `{subject}`, each as a whole segment",
                ));
            }
            part => Segment::Text(part.to_owned()),
        });
    }
    Ok(segments)
}

impl Access {
    fn check(raw: raw::Requires, path_match: &PathMatch, path: &str) -> Result<Self, ConfigError> {
        let at = |key: &str, message: &str| ConfigError::at(format!("{path}.requires.{key}"), message);
        let raw::Requirement { scopes, roles, owner, unless_role } = match raw {
            raw::Requires::None => return Ok(Self::Public),
            raw::Requires::Optional => return Ok(Self::Optional),
            raw::Requires::Token(requirement) => requirement,
        };
        // RFC 6749 section 3.3: what a scope may be made of; it is also written into WWW-Authenticate.
        let scope_token = |scope: &String| {
            !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte))
        };
        if !scopes.iter().all(scope_token) {
            return Err(at("scopes", "a scope is visible ASCII without quotes, backslashes and spaces"));
        }
        if roles.iter().any(String::is_empty) {
            return Err(at("roles", "a role must not be empty"));
        }
        let owner = match (owner, unless_role) {
            (None, None) => None,
            (None, Some(_)) => return Err(at("unless_role", "is only for rules with an `owner`")),
            (Some(raw::Owner::Subject), _) if !path_match.names_subject() => {
                return Err(at("owner", "needs a `match.template` with `{subject}`"));
            }
            (Some(raw::Owner::Subject), unless_role) => Some(Owner { unless_role }),
        };
        if owner.is_none() && path_match.names_subject() {
            return Err(at(
                "owner",
                "the template has `{subject}`, which only a rule with `owner: subject` checks",
            ));
        }
        Ok(Self::Required(Requirement { scopes, roles, owner }))
    }
}

fn check_quotas(
    raw: Vec<raw::Quota>,
    access: &Access,
    path: &str,
    has_origin: bool,
) -> Result<Vec<QuotaCharge>, ConfigError> {
    let at = |key: &str, message: &str| ConfigError::at(format!("{path}.{key}"), message);
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    if !has_origin {
        return Err(at("quotas", "quotas need an `origin` to lend units"));
    }
    if !matches!(access, Access::Required(_)) {
        return Err(at("quotas", "quotas are counted by subject, so `requires` must be a token"));
    }
    if raw.len() > QUOTAS_MAX {
        return Err(at("quotas", "more than 4 quotas"));
    }
    let mut quotas: Vec<QuotaCharge> = Vec::new();
    for (place, raw::Quota { name, cost }) in raw.into_iter().enumerate() {
        let named = !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !named {
            return Err(at(&format!("quotas[{place}].name"), "1 to 64 letters, digits, `-`, `_` and `.`"));
        }
        if quotas.iter().any(|known| known.name == name) {
            return Err(at(&format!("quotas[{place}].name"), "this rule already charges this quota"));
        }
        if !(1..=COST_MAX).contains(&cost) {
            return Err(at(&format!("quotas[{place}].cost"), "must be 1 to 1000000"));
        }
        quotas.push(QuotaCharge { name, cost });
    }
    Ok(quotas)
}
