//! Decides whether a client can be as an operator ordered it.

use super::{Client, ClientAuthentication, ClientFault, ClientKeys, Grants, NewClientSecret, client_id};
use crate::clock::Host;
use crate::credential::new_id;
use crate::quota::PlanBook;

/// What no id of a client begins with: ids of users do.
const USER_ID_PREFIX: &str = "u_";

/// A client that is wanted.
#[derive(Debug, Clone, Default)]
pub struct ClientOrder {
    /// By what it shall be known; something new when `None`.
    pub id: Option<String>,
    /// What people call it.
    pub name: String,
    /// How it shall prove who it is.
    pub auth: AuthenticationOrder,
    /// The names of its grants.
    pub grants: Vec<String>,
    /// What its own tokens may be good for.
    pub scopes: Vec<String>,
    /// What it is, in those tokens.
    pub roles: Vec<String>,
    /// Which limit applies; the default one when `None`.
    pub plan: Option<String>,
    /// The customer it belongs to.
    pub tenant: Option<String>,
    /// Whether it may ask about tokens that are not its own.
    pub may_introspect: bool,
}

/// How a new client shall prove who it is.
#[derive(Debug, Clone, Default)]
pub enum AuthenticationOrder {
    /// Not at all.
    #[default]
    None,
    /// With a secret that is made for it.
    Secret,
    /// With the keys of this JWK Set.
    PrivateKeyJwt(String),
}

/// A client that was just made, with its secret if it has one.
#[derive(Debug)]
pub struct NewClient {
    /// The client.
    pub client: Client,
    /// Shown once and then gone.
    pub secret: Option<NewClientSecret>,
}

impl ClientOrder {
    /// The client, if it can be as ordered.
    ///
    /// # Errors
    /// See [`ClientFault`].
    pub fn checked(self, plans: &PlanBook, host: &dyn Host) -> Result<NewClient, ClientFault> {
        let Self { id, name, auth, grants, scopes, roles, plan, tenant, may_introspect } = self;
        let id = match id {
            // Both are `sub` of tokens, and a client must not be taken for a user (RFC 9068 section 5).
            Some(id) if id.starts_with(USER_ID_PREFIX) => return Err(ClientFault::Id),
            Some(id) => client_id(&id).ok_or(ClientFault::Id)?,
            None => client_id(&new_id("c_", host)?).ok_or(ClientFault::Id)?,
        };
        let (auth, secret) = match auth {
            AuthenticationOrder::None => (ClientAuthentication::None, None),
            AuthenticationOrder::Secret => {
                let secret = NewClientSecret::generate(host)?;
                (ClientAuthentication::Secret(vec![secret.kept.clone()]), Some(secret))
            }
            AuthenticationOrder::PrivateKeyJwt(jwks) => {
                (ClientAuthentication::PrivateKeyJwt(ClientKeys::from_jwks(&jwks)?), None)
            }
        };
        let grants = Grants::named(&grants).ok_or(ClientFault::Grants)?;
        let plan = plan.unwrap_or_else(|| plans.default_name().to_owned());
        let client = Client {
            id,
            name,
            auth,
            grants,
            scopes,
            roles,
            plan,
            tenant,
            may_introspect,
            disabled: false,
            version: 1,
        };
        client.check(plans)?;
        Ok(NewClient { client, secret })
    }
}
