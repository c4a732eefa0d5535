//! Decides what an operator may do: each admin route names one permission, and each operator has a set of them.

use std::collections::BTreeSet;

/// What an operator may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Permission {
    UsersRead,
    UsersWrite,
    RolesRead,
    RolesWrite,
    TenantsRead,
    TenantsWrite,
    ClientsRead,
    ClientsWrite,
    KeysRead,
    KeysWrite,
    AuditRead,
    EdgesRead,
    EdgesWrite,
    ApiKeysRead,
    ApiKeysWrite,
    RevocationsRead,
    RevocationsWrite,
    ShardsRead,
    MetricsRead,
    OperatorsRead,
    OperatorsWrite,
}

impl Permission {
    /// All there are.
    pub const ALL: [Self; 21] = [
        Self::UsersRead,
        Self::UsersWrite,
        Self::RolesRead,
        Self::RolesWrite,
        Self::TenantsRead,
        Self::TenantsWrite,
        Self::ClientsRead,
        Self::ClientsWrite,
        Self::KeysRead,
        Self::KeysWrite,
        Self::AuditRead,
        Self::EdgesRead,
        Self::EdgesWrite,
        Self::ApiKeysRead,
        Self::ApiKeysWrite,
        Self::RevocationsRead,
        Self::RevocationsWrite,
        Self::ShardsRead,
        Self::MetricsRead,
        Self::OperatorsRead,
        Self::OperatorsWrite,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UsersRead => "users:read",
            Self::UsersWrite => "users:write",
            Self::RolesRead => "roles:read",
            Self::RolesWrite => "roles:write",
            Self::TenantsRead => "tenants:read",
            Self::TenantsWrite => "tenants:write",
            Self::ClientsRead => "clients:read",
            Self::ClientsWrite => "clients:write",
            Self::KeysRead => "keys:read",
            Self::KeysWrite => "keys:write",
            Self::AuditRead => "audit:read",
            Self::EdgesRead => "edges:read",
            Self::EdgesWrite => "edges:write",
            Self::ApiKeysRead => "api-keys:read",
            Self::ApiKeysWrite => "api-keys:write",
            Self::RevocationsRead => "revocations:read",
            Self::RevocationsWrite => "revocations:write",
            Self::ShardsRead => "shards:read",
            Self::MetricsRead => "metrics:read",
            Self::OperatorsRead => "operators:read",
            Self::OperatorsWrite => "operators:write",
        }
    }

    /// The permission of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.name() == name)
    }
}

/// What an operator may do in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permissions {
    /// Everything, also what is added later.
    Everything,
    /// These.
    Only(BTreeSet<Permission>),
}

const EVERYTHING: &str = "*";

impl Permissions {
    /// What these names say; none at all say everything. `None` when one of them names nothing.
    #[must_use]
    pub fn ordered(names: &[String]) -> Option<Self> {
        if names.is_empty() || names.iter().any(|name| name == EVERYTHING) {
            let known = |name: &String| name == EVERYTHING || Permission::of(name).is_some();
            return names.iter().all(known).then_some(Self::Everything);
        }
        names.iter().map(|name| Permission::of(name)).collect::<Option<_>>().map(Self::Only)
    }

    /// What a row says. A name that this version does not know permits nothing.
    #[must_use]
    pub fn kept(names: &[String]) -> Self {
        if names.iter().any(|name| name == EVERYTHING) {
            return Self::Everything;
        }
        Self::Only(names.iter().filter_map(|name| Permission::of(name)).collect())
    }

    /// The names, as a row has them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Everything => vec![EVERYTHING.to_owned()],
            Self::Only(some) => some.iter().map(|permission| permission.name().to_owned()).collect(),
        }
    }

    /// Whether all of them are among those of `other`.
    #[must_use]
    pub fn are_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Everything) => true,
            // Also what is added later is part of everything.
            (Self::Everything, Self::Only(_)) => false,
            (Self::Only(some), Self::Only(others)) => some.is_subset(others),
        }
    }

    /// Whether this is among them.
    #[must_use]
    pub fn allow(&self, permission: Permission) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(some) => some.contains(&permission),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_permission_has_a_name_of_its_own() {
        let all: BTreeSet<_> = Permission::ALL.iter().map(|permission| permission.name()).collect();
        assert_eq!(all.len(), Permission::ALL.len());
        assert!(Permission::ALL.iter().all(|one| Permission::of(one.name()) == Some(*one)));
    }

    #[test]
    fn a_set_allows_what_it_names_and_nothing_else() {
        let some = Permissions::ordered(&names(&["users:read", "audit:read"])).unwrap();
        assert!(some.allow(Permission::UsersRead) && !some.allow(Permission::UsersWrite));
        assert_eq!(Permissions::kept(&some.names()), some);
        assert_eq!(Permissions::ordered(&[]), Some(Permissions::Everything));
        assert_eq!(Permissions::ordered(&names(&["users:read", "*"])), Some(Permissions::Everything));
        assert_eq!(Permissions::ordered(&names(&["users:all"])), None);
        assert_eq!(Permissions::ordered(&names(&["*", "users:all"])), None);
        let one = Permissions::ordered(&names(&["users:read"])).unwrap();
        assert!(one.are_within(&some) && some.are_within(&some) && !some.are_within(&one));
        assert!(some.are_within(&Permissions::Everything) && !Permissions::Everything.are_within(&some));
        // A row of a later version, or none at all: fewer rights, never more.
        assert!(!Permissions::kept(&names(&["later:write"])).allow(Permission::UsersRead));
        assert!(!Permissions::kept(&[]).allow(Permission::UsersRead));
    }
}
