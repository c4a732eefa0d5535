-- Accounts, sessions with refresh tokens, clients, rights, keys at rest, audit. The tables are those of Postgres.

ALTER TABLE users ADD COLUMN slot INTEGER NOT NULL DEFAULT -1;  -- -1 until the program has filled it in
ALTER TABLE users ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE users ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN password_changed_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN rehash_until INTEGER NOT NULL DEFAULT 0;
CREATE INDEX users_by_slot ON users (slot, id);

-- Which user has a name. In the home database, also when users are spread over several.
CREATE TABLE user_names (
    username TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO user_names (username, user_id, created_at) SELECT username, id, created_at FROM users;

-- Which database has a slot of users (home), and the slots that this database has (each).
CREATE TABLE slots (
    slot INTEGER NOT NULL PRIMARY KEY CHECK (slot BETWEEN 0 AND 255),
    shard INTEGER NOT NULL,
    moving_to INTEGER
) STRICT;
CREATE TABLE owned_slots (slot INTEGER NOT NULL PRIMARY KEY) STRICT;

ALTER TABLE sessions RENAME TO sessions_before;
DROP INDEX sessions_by_user;
CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    client_id TEXT NOT NULL,
    device TEXT,
    scope TEXT NOT NULL,
    tenant TEXT,
    created_at INTEGER NOT NULL,      -- when the password was given
    last_used_at INTEGER NOT NULL,
    last_issued_at INTEGER NOT NULL,  -- `iat` of the latest access token
    token_until INTEGER NOT NULL,     -- `exp` of the latest access token
    idle_until INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,      -- the absolute end
    generation INTEGER NOT NULL,      -- of the refresh token that is current
    ended_at INTEGER,
    end_reason TEXT
) STRICT;
INSERT INTO sessions (id, user_id, client_id, device, scope, created_at, last_used_at, last_issued_at, token_until,
                      idle_until, expires_at, generation)
    SELECT id, user_id, client_id, device, scope, created_at, created_at, created_at, expires_at, expires_at, expires_at, 0
    FROM sessions_before;
DROP TABLE sessions_before;
CREATE INDEX sessions_by_user ON sessions (user_id, created_at);
CREATE INDEX sessions_by_client ON sessions (client_id, last_issued_at);
CREATE INDEX sessions_by_tenant ON sessions (tenant, last_issued_at);
CREATE INDEX sessions_by_issue ON sessions (last_issued_at);
CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    session_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    nonce BLOB NOT NULL CHECK (length(nonce) = 16),
    created_at INTEGER NOT NULL,
    rotated_at_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX refresh_tokens_by_session ON refresh_tokens (session_id, generation);

CREATE TABLE devices (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    user_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX devices_by_user ON devices (user_id, seen_at);

-- Revocations that were decided with a user's rows and are not yet in the feed's log.
CREATE TABLE outbox (
    id TEXT NOT NULL PRIMARY KEY,
    dimension TEXT NOT NULL,
    value TEXT NOT NULL,
    ends_sessions INTEGER NOT NULL,
    reason TEXT,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- Wishes of other databases that the log has, for as long as they might be published again.
CREATE TABLE outbox_published (
    id TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE login_events (
    id TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    address TEXT,
    device TEXT
) STRICT;
CREATE INDEX login_events_by_user ON login_events (user_id, at);
CREATE INDEX login_events_by_date ON login_events (at);

-- By what a token has to be dated, and which sessions are over. Kept as long as a session can last.
CREATE TABLE cutoffs (
    dimension TEXT NOT NULL,
    value TEXT NOT NULL,
    issued_before INTEGER NOT NULL,  -- access tokens dated before this are revoked
    began_before INTEGER,            -- sessions that began before this are over
    until INTEGER NOT NULL,
    PRIMARY KEY (dimension, value)
) STRICT, WITHOUT ROWID;
INSERT INTO cutoffs (dimension, value, issued_before, began_before, until)
    SELECT dimension, value, MAX(COALESCE(issued_before, created_at + 1)), MAX(COALESCE(issued_before, created_at + 1)),
           MAX(until) FROM feed_log
    WHERE kind = 'cutoff' AND issuer IS NULL AND dimension IN ('subject', 'client', 'tenant', 'issuer', 'session')
    GROUP BY dimension, value;

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
INSERT INTO tenants (id, name, created_at, updated_at)
    SELECT DISTINCT tenant, tenant, created_at, created_at FROM users WHERE tenant IS NOT NULL GROUP BY tenant;

CREATE TABLE roles (
    name TEXT NOT NULL PRIMARY KEY,
    permissions TEXT NOT NULL,  -- a JSON array of strings
    description TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
INSERT INTO roles (name, permissions, description, created_at, updated_at)
    SELECT DISTINCT value, '[]', '', 0, 0 FROM users, json_each(users.roles);

CREATE TABLE clients (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    auth TEXT NOT NULL,  -- JSON: how the client authenticates
    grants TEXT NOT NULL,
    scopes TEXT NOT NULL,
    roles TEXT NOT NULL,
    plan TEXT NOT NULL,
    tenant TEXT,
    may_introspect INTEGER NOT NULL DEFAULT 0,
    disabled INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 1,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE used_assertions (
    digest BLOB NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX used_assertions_by_end ON used_assertions (until);

CREATE TABLE signing_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    alg TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    published_at INTEGER NOT NULL,
    active_at INTEGER,
    retiring_at INTEGER,
    ended_at INTEGER,
    token_seconds INTEGER NOT NULL,
    sealed BLOB,  -- none once it signs no more
    public_jwk TEXT NOT NULL
) STRICT;

CREATE TABLE sealed_secrets (
    name TEXT NOT NULL PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT;

ALTER TABLE credentials ADD COLUMN permissions TEXT NOT NULL DEFAULT '["*"]';

CREATE TABLE idempotency_keys (
    operator TEXT NOT NULL,
    key TEXT NOT NULL,
    request BLOB NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (operator, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_date ON idempotency_keys (created_at);

CREATE TABLE audit (
    id TEXT NOT NULL PRIMARY KEY,  -- ordered by date
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    address TEXT,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_date ON audit (at);
CREATE INDEX audit_by_actor ON audit (actor, id);
CREATE INDEX audit_by_target ON audit (target, id);
CREATE INDEX audit_by_action ON audit (action, id);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;

-- What is hot: principals to have in memory before the first request.
CREATE TABLE hot_principals (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    uses INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
