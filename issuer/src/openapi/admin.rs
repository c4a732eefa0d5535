//! What operators call.

use axum::http::Method;
use tollgate_shared::revocation::Dimension;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::{Carried, Description, Shape, describe, name_parameter, number_parameter, query};
use crate::routes::admin::api_key::{ApiKeyAnswer, ApiKeysAnswer, CreatedApiKeyAnswer, NewApiKeyBody};
use crate::routes::admin::audit::{AuditPageAnswer, NDJSON};
use crate::routes::admin::client::{
    ClientAnswer, ClientPatchBody, ClientsAnswer, CreatedClientAnswer, NewClientBody, SecretAnswer,
};
use crate::routes::admin::edge::{CreatedEdgeAnswer, EdgeBody, EdgesAnswer};
use crate::routes::admin::key::{KeysAnswer, WithdrawalBody};
use crate::routes::admin::operator::{CreatedOperatorAnswer, OperatorBody, OperatorsAnswer};
use crate::routes::admin::revocation::{RevocationAnswer, RevocationBody, RevocationsAnswer};
use crate::routes::admin::role::{NewRoleBody, RoleAnswer, RoleBody, RolesAnswer};
use crate::routes::admin::shard::ShardsAnswer;
use crate::routes::admin::tenant::{NewTenantBody, TenantAnswer, TenantPatchBody, TenantsAnswer};
use crate::routes::admin::user::{
    NewUserBody, PasswordBody, SessionsAnswer, UserAnswer, UserPatchBody, UsersAnswer,
};

pub(super) fn descriptions() -> Vec<Description> {
    let mut all = users();
    all.extend(rights());
    all.extend(clients());
    all.extend(api_keys());
    all.extend(others());
    all
}

#[rustfmt::skip]
fn users() -> Vec<Description> {
    const USERS: &str = "/v1/admin/users";
    const USER: &str = "/v1/admin/users/{id}";
    const SESSIONS: &str = "/v1/admin/users/{id}/sessions";
    vec![
        describe(Method::POST, USERS, "addUser", "Add a user").takes::<NewUserBody>().gives::<UserAnswer>(201).located(),
        describe(Method::GET, USERS, "listUsers", "List users by name").paged().gives::<UsersAnswer>(200)
            .asks(name_parameter("username", "Only the user of this name")),
        describe(Method::GET, USER, "showUser", "Show a user").gives::<UserAnswer>(200).tagged(),
        describe(Method::PATCH, USER, "changeUser", "Change a user").takes::<UserPatchBody>().gives::<UserAnswer>(200)
            .tagged().conditional(),
        describe(Method::DELETE, USER, "deleteUser", "Delete a user, and end every session").conditional(),
        describe(Method::PUT, "/v1/admin/users/{id}/password", "setPassword", "Set a password, and end every session")
            .takes::<PasswordBody>().gives::<UserAnswer>(200).tagged().conditional(),
        describe(Method::POST, "/v1/admin/users/{id}/unlock", "unlockUser", "Forget failed logins"),
        describe(Method::GET, SESSIONS, "listUserSessions", "List sessions").gives::<SessionsAnswer>(200),
        describe(Method::DELETE, SESSIONS, "endUserSessions", "End every session"),
        describe(Method::DELETE, "/v1/admin/users/{id}/sessions/{sid}", "endUserSession", "End a session"),
    ]
}

#[rustfmt::skip]
fn rights() -> Vec<Description> {
    const ROLES: &str = "/v1/admin/roles";
    const ROLE: &str = "/v1/admin/roles/{name}";
    const TENANTS: &str = "/v1/admin/tenants";
    const TENANT: &str = "/v1/admin/tenants/{id}";
    vec![
        describe(Method::POST, ROLES, "addRole", "Add a role").takes::<NewRoleBody>().gives::<RoleAnswer>(201).located(),
        describe(Method::GET, ROLES, "listRoles", "List roles by name").paged().gives::<RolesAnswer>(200),
        describe(Method::GET, ROLE, "showRole", "Show a role").gives::<RoleAnswer>(200).tagged(),
        describe(Method::PUT, ROLE, "changeRole", "Change what a role permits").takes::<RoleBody>()
            .gives::<RoleAnswer>(200).tagged().conditional(),
        describe(Method::DELETE, ROLE, "deleteRole", "Delete a role").conditional(),
        describe(Method::POST, TENANTS, "addTenant", "Add a tenant").takes::<NewTenantBody>()
            .gives::<TenantAnswer>(201).located(),
        describe(Method::GET, TENANTS, "listTenants", "List tenants by id").paged().gives::<TenantsAnswer>(200),
        describe(Method::GET, TENANT, "showTenant", "Show a tenant").gives::<TenantAnswer>(200).tagged(),
        describe(Method::PATCH, TENANT, "changeTenant", "Change a tenant").takes::<TenantPatchBody>()
            .gives::<TenantAnswer>(200).tagged().conditional(),
    ]
}

#[rustfmt::skip]
fn clients() -> Vec<Description> {
    const CLIENTS: &str = "/v1/admin/clients";
    const CLIENT: &str = "/v1/admin/clients/{id}";
    vec![
        describe(Method::POST, CLIENTS, "addClient", "Add a client; its secret is shown here only")
            .takes::<NewClientBody>().gives::<CreatedClientAnswer>(201).located(),
        describe(Method::GET, CLIENTS, "listClients", "List clients by id").paged().gives::<ClientsAnswer>(200),
        describe(Method::GET, CLIENT, "showClient", "Show a client").gives::<ClientAnswer>(200).tagged(),
        describe(Method::PATCH, CLIENT, "changeClient", "Change a client").takes::<ClientPatchBody>()
            .gives::<ClientAnswer>(200).tagged().conditional(),
        describe(Method::DELETE, CLIENT, "deleteClient", "Delete a client, and cut off what it has").conditional(),
        describe(Method::POST, "/v1/admin/clients/{id}/secrets", "addSecret", "Make one more secret, shown here only")
            .gives::<SecretAnswer>(201).located(),
        describe(Method::DELETE, "/v1/admin/clients/{id}/secrets/{secret}", "withdrawSecret", "Withdraw a secret")
            .conditional(),
    ]
}

#[rustfmt::skip]
fn api_keys() -> Vec<Description> {
    const KEYS: &str = "/v1/admin/api-keys";
    const KEY: &str = "/v1/admin/api-keys/{id}";
    vec![
        describe(Method::POST, KEYS, "addApiKey", "Make an API key, shown here only").takes::<NewApiKeyBody>()
            .gives::<CreatedApiKeyAnswer>(201),
        describe(Method::GET, KEYS, "listApiKeys", "List API keys by id").paged().gives::<ApiKeysAnswer>(200)
            .asks(name_parameter("user", "Only those of the user of this id"))
            .asks(name_parameter("client", "Only those of the client of this id")),
        describe(Method::GET, KEY, "showApiKey", "Show an API key").gives::<ApiKeyAnswer>(200),
        describe(Method::DELETE, KEY, "revokeApiKey", "Revoke an API key"),
    ]
}

#[rustfmt::skip]
fn others() -> Vec<Description> {
    let dimensions = Dimension::ALL.map(Dimension::name);
    let dimensions = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(dimensions));
    let format = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["json", "ndjson"]));
    let mut audit = describe(Method::GET, "/v1/admin/audit", "listAudit", "Read the audit log, oldest first")
        .paged()
        .asks(name_parameter("actor", "Only of this actor"))
        .asks(name_parameter("action", "Only of this action"))
        .asks(name_parameter("target", "Only of this target"))
        .asks(number_parameter("since", "Not before this second since 1970"))
        .asks(number_parameter("until", "Not after this second since 1970"))
        .asks(query("format", "Lines of JSON with all events, whatever `limit` says, or one page", format));
    audit.answer = (200, Carried::Either(Shape::of::<AuditPageAnswer>(), NDJSON));
    vec![
        audit,
        describe(Method::GET, "/v1/admin/signing-keys", "listKeys", "List signing keys").gives::<KeysAnswer>(200),
        describe(Method::POST, "/v1/admin/signing-keys/rotate", "rotateKeys", "Do with signing keys what is due")
            .gives::<KeysAnswer>(200),
        describe(Method::POST, "/v1/admin/signing-keys/{kid}/withdraw", "withdrawKey", "Withdraw a signing key")
            .takes::<WithdrawalBody>(),
        describe(Method::GET, "/v1/admin/edges", "listEdges", "List edges").gives::<EdgesAnswer>(200),
        describe(Method::POST, "/v1/admin/edges", "addEdge", "Make an edge's credential, shown here only")
            .takes::<EdgeBody>().gives::<CreatedEdgeAnswer>(201),
        describe(Method::DELETE, "/v1/admin/edges/{id}", "removeEdge", "Withdraw an edge's credential"),
        describe(Method::GET, "/v1/admin/operators", "listOperators", "List operators").gives::<OperatorsAnswer>(200),
        describe(Method::POST, "/v1/admin/operators", "addOperator", "Make an operator's credential, shown here only")
            .takes::<OperatorBody>().gives::<CreatedOperatorAnswer>(201),
        describe(Method::DELETE, "/v1/admin/operators/{name}", "removeOperator", "Withdraw an operator's credential"),
        describe(Method::POST, "/v1/admin/revocations", "revoke", "Revoke what has a value in a dimension")
            .takes::<RevocationBody>().gives::<RevocationAnswer>(201),
        describe(Method::GET, "/v1/admin/revocations", "listRevocations", "List what was revoked, oldest first")
            .paged_by(number_parameter("after", "The `next` of the page before")).gives::<RevocationsAnswer>(200)
            .asks(query("dimension", "Only in this dimension", dimensions))
            .asks(name_parameter("value", "Only of this value; a status list and a place in it are written with a slash between"))
            .asks(name_parameter("actor", "Only by this actor"))
            .asks(number_parameter("since", "Not before this second since 1970"))
            .asks(number_parameter("until", "Not after this second since 1970")),
        describe(Method::GET, "/v1/admin/shards", "listShards", "List the databases of users").gives::<ShardsAnswer>(200),
    ]
}
