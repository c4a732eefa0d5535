//! Keeps OAuth clients.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use tollgate_shared::revocation::Dimension;
use tollgate_shared::time::UnixSeconds;

use super::api_keys::revoke_all_of;
use super::changes::FactKind;
use super::cutoffs::Reach;
use super::database::{Lock, Tx};
use super::outbox::{Wish, Wished, wish};
use super::rights::{Revision, expect};
use super::{Store, StoreError, exists, list_from_json, list_to_json, lost, signed};
use crate::api_key::ApiKeyOwner;
use crate::client::{Client, ClientAuthentication, ClientKeys, ClientSecret, Grants, client_id};
use crate::clock::Host;
use crate::credential::SecretDigest;

impl Store {
    /// Adds a client.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub async fn add_client(&self, client: &Client, now: UnixSeconds) -> Result<(), StoreError> {
        let _changing = self.changing(FactKind::Client, client.id.as_str());
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(client.id.as_str())]).await?;
                insert(&mut write, client, now).await.map_err(exists)?;
                write.commit().await?;
                Ok(())
            })
            .await
    }

    /// Adds a client unless there is one of this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ensure_client(&self, client: &Client, now: UnixSeconds) -> Result<(), StoreError> {
        match self.add_client(client, now).await {
            Ok(()) | Err(StoreError::Exists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The client of this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn client(&self, id: &str) -> Result<Option<(Client, Revision)>, StoreError> {
        self.home
            .run(move || async move {
                let mut read = self.home.read().await?;
                let found = client_in(&mut read, id).await?;
                read.commit().await?;
                Ok(found)
            })
            .await
    }

    /// The revision of the client of this id: to see whether what is known of it is what is stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn client_revision(&self, id: &str) -> Result<Option<Revision>, StoreError> {
        self.home
            .run(move || async move {
                let row = sqlx::query("SELECT version, created_at, updated_at FROM clients WHERE id = $1")
                    .bind(id)
                    .fetch_optional(self.home.readers())
                    .await?;
                row.as_ref().map(Revision::from_row).transpose()
            })
            .await
    }

    /// The clients whose ids come after `after`, at most `limit`, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clients(&self, after: &str, limit: u32) -> Result<Vec<(Client, Revision)>, StoreError> {
        self.home
            .run(move || async move {
                let rows = sqlx::query(
                    "SELECT id, name, auth, grants, scopes, roles, plan, tenant, may_introspect, disabled, version, \
                     created_at, updated_at FROM clients WHERE id > $1 ORDER BY id LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(self.home.readers())
                .await?;
                rows.iter().map(client_from_row).collect()
            })
            .await
    }

    /// Changes a client. Disabling it cuts off all its tokens and sessions; taking something away from it cuts off the
    /// tokens that it has for itself. That is published when [`Store::publish`] returns.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Changed`] when this is not the version.
    pub async fn change_client(
        &self,
        client: &Client,
        if_version: Option<u64>,
        actor: &str,
        host: &dyn Host,
    ) -> Result<(Revision, Wished), StoreError> {
        let _changing = self.changing(FactKind::Client, client.id.as_str());
        self.home
            .run(move || async move {
                let now = host.seconds();
                let id = client.id.as_str();
                let mut write = self.home.write(&[Lock::Name(id)]).await?;
                let known = client_in(&mut write, id).await?;
                expect(known.as_ref().map(|(_, revision)| signed(revision.version)), if_version)?;
                update(&mut write, client, now).await?;
                let (before, _) = known.ok_or(StoreError::Missing)?;
                let mut wishes = Vec::new();
                if client.disabled && !before.disabled {
                    let order = cut_off(id, Reach::Sessions, "client disabled", actor);
                    wishes.push(wish(&mut write, order, now, host).await?);
                } else if takes_away(&before, client) {
                    let order = cut_off(id, Reach::Tokens, "rights changed", actor);
                    wishes.push(wish(&mut write, order, now, host).await?);
                }
                let revision = client_in(&mut write, id).await?.ok_or(StoreError::Missing)?.1;
                write.commit().await?;
                Ok((revision, Wished::at(&self.home, wishes)))
            })
            .await
    }

    /// Deletes a client and revokes its API keys. All its tokens and sessions are cut off, which is published when
    /// [`Store::publish`] returns.
    ///
    /// # Errors
    /// [`StoreError::Missing`], or [`StoreError::Changed`] when this is not the version.
    pub async fn delete_client(
        &self,
        id: &str,
        if_version: Option<u64>,
        actor: &str,
        host: &dyn Host,
    ) -> Result<Wished, StoreError> {
        let _changing = self.changing(FactKind::Client, id);
        self.home
            .run(move || async move {
                let mut write = self.home.write(&[Lock::Name(id)]).await?;
                let known = client_in(&mut write, id).await?;
                expect(known.map(|(_, revision)| signed(revision.version)), if_version)?;
                sqlx::query("DELETE FROM clients WHERE id = $1").bind(id).execute(&mut *write).await?;
                revoke_all_of(&mut write, &ApiKeyOwner::Client(id.to_owned()), host.seconds()).await?;
                let order = cut_off(id, Reach::Sessions, "client deleted", actor);
                let wish = wish(&mut write, order, host.seconds(), host).await?;
                write.commit().await?;
                Ok(Wished::at(&self.home, vec![wish]))
            })
            .await
    }
}

/// What a client has of its own is in no session, so it is not known when the last of it ends.
fn cut_off<'w>(id: &'w str, reach: Reach, reason: &'w str, actor: &'w str) -> Wish<'w> {
    Wish { dimension: Dimension::Client, value: id, reach, reason, actor, token_until: None }
}

fn takes_away(before: &Client, after: &Client) -> bool {
    lost(&before.roles, &after.roles)
        || lost(&before.scopes, &after.scopes)
        || before.plan != after.plan
        || before.tenant != after.tenant
        || before.grants.iter().any(|grant| !after.grants.has(grant))
}

async fn insert(write: &mut Tx, client: &Client, now: UnixSeconds) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO clients (id, name, auth, grants, scopes, roles, plan, tenant, may_introspect, disabled, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
    )
    .bind(client.id.as_str())
    .bind(&client.name)
    .bind(auth_to_json(&client.auth).to_string())
    .bind(grants_to_json(client.grants))
    .bind(list_to_json(&client.scopes))
    .bind(list_to_json(&client.roles))
    .bind(&client.plan)
    .bind(client.tenant.as_deref())
    .bind(i64::from(client.may_introspect))
    .bind(i64::from(client.disabled))
    .bind(signed(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

async fn update(write: &mut Tx, client: &Client, now: UnixSeconds) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE clients SET name = $2, auth = $3, grants = $4, scopes = $5, roles = $6, plan = $7, tenant = $8, \
         may_introspect = $9, disabled = $10, updated_at = $11, version = version + 1 WHERE id = $1",
    )
    .bind(client.id.as_str())
    .bind(&client.name)
    .bind(auth_to_json(&client.auth).to_string())
    .bind(grants_to_json(client.grants))
    .bind(list_to_json(&client.scopes))
    .bind(list_to_json(&client.roles))
    .bind(&client.plan)
    .bind(client.tenant.as_deref())
    .bind(i64::from(client.may_introspect))
    .bind(i64::from(client.disabled))
    .bind(signed(now.0))
    .execute(&mut **write)
    .await?;
    Ok(())
}

async fn client_in(transaction: &mut Tx, id: &str) -> Result<Option<(Client, Revision)>, StoreError> {
    let row = sqlx::query(
        "SELECT id, name, auth, grants, scopes, roles, plan, tenant, may_introspect, disabled, version, created_at, \
         updated_at FROM clients WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(&mut **transaction)
    .await?;
    row.as_ref().map(client_from_row).transpose()
}

fn client_from_row(row: &AnyRow) -> Result<(Client, Revision), StoreError> {
    let revision = Revision::from_row(row)?;
    let text = |name: &str| row.try_get::<String, _>(name);
    let flag = |name: &str| row.try_get::<i64, _>(name).map(|flag| flag != 0);
    let grants = list_from_json(&text("grants")?, "clients.grants")?;
    let client = Client {
        id: client_id(&text("id")?).ok_or(StoreError::Corrupt("clients.id"))?,
        name: text("name")?,
        auth: auth_from_json(&text("auth")?).ok_or(StoreError::Corrupt("clients.auth"))?,
        grants: Grants::named(&grants).ok_or(StoreError::Corrupt("clients.grants"))?,
        scopes: list_from_json(&text("scopes")?, "clients.scopes")?,
        roles: list_from_json(&text("roles")?, "clients.roles")?,
        plan: text("plan")?,
        tenant: row.try_get("tenant")?,
        may_introspect: flag("may_introspect")?,
        disabled: flag("disabled")?,
        version: revision.version,
    };
    Ok((client, revision))
}

fn grants_to_json(grants: Grants) -> String {
    let names: Vec<String> = grants.iter().map(|grant| grant.name().to_owned()).collect();
    list_to_json(&names)
}

/// How a client authenticates, as it is kept.
#[derive(Debug, Clone)]
pub struct ClientAuthText(pub String);

impl ClientAuthText {
    /// The text for this.
    #[must_use]
    pub fn of(auth: &ClientAuthentication) -> Self {
        Self(auth_to_json(auth).to_string())
    }

    /// What the text says; `None` when it is not ours.
    #[must_use]
    pub fn parsed(&self) -> Option<ClientAuthentication> {
        auth_from_json(&self.0)
    }
}

fn auth_to_json(auth: &ClientAuthentication) -> Value {
    match auth {
        ClientAuthentication::None => json!({ "method": "none" }),
        ClientAuthentication::Secret(secrets) => {
            let secrets: Vec<Value> = secrets
                .iter()
                .map(|ClientSecret { id, digest }| {
                    json!({ "id": id, "digest": Base64UrlUnpadded::encode_string(digest.as_bytes()) })
                })
                .collect();
            json!({ "method": "secret", "secrets": secrets })
        }
        ClientAuthentication::PrivateKeyJwt(keys) => {
            json!({ "method": "private_key_jwt", "jwks": keys.text() })
        }
    }
}

fn auth_from_json(text: &str) -> Option<ClientAuthentication> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(match value.get("method")?.as_str()? {
        "none" => ClientAuthentication::None,
        "secret" => {
            let secret = |value: &Value| {
                let digest = Base64UrlUnpadded::decode_vec(value.get("digest")?.as_str()?).ok()?;
                let digest = SecretDigest::from_bytes(&digest)?;
                Some(ClientSecret { id: value.get("id")?.as_str()?.to_owned(), digest })
            };
            let secrets: Option<Vec<_>> = value.get("secrets")?.as_array()?.iter().map(secret).collect();
            ClientAuthentication::Secret(secrets?)
        }
        "private_key_jwt" => {
            ClientAuthentication::PrivateKeyJwt(ClientKeys::from_jwks(value.get("jwks")?.as_str()?).ok()?)
        }
        _ => return None,
    })
}
