//! The users and clients of a benchmark: put where the issuer keeps them, before it starts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tollgate_issuer::App;
use tollgate_issuer::client::{AuthenticationOrder, ClientOrder};
use tollgate_issuer::clock::SystemHost;
use tollgate_issuer::config::{Flags, Settings};
use tollgate_issuer::password::{NewPassword, Password, PasswordContext};
use tollgate_issuer::store::{NewUser, User};
use zeroize::Zeroizing;

/// Everybody's password.
pub(crate) const PASSWORD: &str = "plum orbit satchel nine";
/// The client that may refresh, and have tokens for itself.
pub(crate) const CLIENT: &str = "bench";

/// Who is to be there.
pub(crate) struct People {
    /// Users by name.
    pub(crate) users: Vec<String>,
    /// Those of them that are disabled.
    pub(crate) disabled: Vec<String>,
}

/// Puts them there, all with one hash, and gives back the client's secret.
pub(crate) async fn move_in(
    people: &People,
    data: &Path,
    issuer: &str,
    variables: &[(String, String)],
) -> Result<String> {
    let environment: BTreeMap<String, String> = variables.iter().cloned().collect();
    let flags =
        Flags { issuer: Some(issuer.to_owned()), data_dir: Some(data.to_owned()), ..Flags::default() };
    let settings = Settings::load(None, &environment, &flags)?;
    let app = App::open(settings, Arc::new(SystemHost::new())).await?;
    let password = Password::new(Zeroizing::new(PASSWORD.to_owned()))?;
    let password = NewPassword::new(password, &PasswordContext { username: "nobody", issuer })?;
    let password_hash = app.passwords.hash(&password).await?;
    for (number, username) in people.users.iter().enumerate() {
        let user = User {
            id: format!("u_bench{number}"),
            username: username.clone(),
            plan: "free".to_owned(),
            roles: Vec::new(),
            scopes: vec!["read".to_owned()],
            tenant: None,
            disabled: people.disabled.contains(username),
        };
        let new = NewUser { user, password_hash: password_hash.clone() };
        app.store.add_user(&new, app.host.seconds()).await?;
    }
    let order = ClientOrder {
        id: Some(CLIENT.to_owned()),
        name: "Benchmark".to_owned(),
        auth: AuthenticationOrder::Secret,
        grants: ["login", "refresh_token", "client_credentials"].map(str::to_owned).to_vec(),
        scopes: vec!["read".to_owned()],
        ..ClientOrder::default()
    };
    let made = order.checked(&app.plans, &*app.host)?;
    app.store.add_client(&made.client, app.host.seconds()).await?;
    let secret = made.secret.context("a client with a secret")?.reveal().to_owned();
    ensure!(!secret.is_empty(), "a secret");
    app.store.close().await;
    Ok(secret)
}

/// Settings that let one address do all that a benchmark does.
pub(crate) fn no_limits() -> Vec<(String, String)> {
    [
        ("ADDRESS_PER_MINUTE", "1000000"),
        ("NETWORK_PER_MINUTE", "1000000"),
        ("TOTAL_PER_SECOND", "1000000"),
        ("TOTAL_BURST", "1000000"),
        ("SPRAYING_ADDRESS_ACCOUNTS", "99999"),
        ("SPRAYING_NETWORK_ACCOUNTS", "99999"),
        ("SPRAYING_TOTAL_ACCOUNTS", "99999"),
        ("ENTRIES_MAX", "1000000"),
    ]
    .map(|(name, value)| (format!("TOLLGATE_THROTTLE__{name}"), value.to_owned()))
    .to_vec()
}
