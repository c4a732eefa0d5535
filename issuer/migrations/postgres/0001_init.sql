-- Everything the issuer must not forget, in the home database and in every shard alike: tables that a shard does not
-- use stay empty there. Instants are seconds since 1970 unless the name says otherwise.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    plan TEXT NOT NULL,
    roles TEXT NOT NULL,  -- a JSON array of strings, as are the scopes
    scopes TEXT NOT NULL,
    tenant TEXT,
    disabled BIGINT NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_at BIGINT NOT NULL,
    slot BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1,
    updated_at BIGINT NOT NULL DEFAULT 0,
    password_changed_at BIGINT NOT NULL DEFAULT 0,
    rehash_until BIGINT NOT NULL DEFAULT 0
);

CREATE INDEX users_by_slot ON users (slot, id);

-- Operator and edge credentials: the digest of the secret, never the secret.
CREATE TABLE credentials (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('operator', 'edge')),
    name TEXT NOT NULL,
    digest BYTEA NOT NULL CHECK (length(digest) = 32),
    created_at BIGINT NOT NULL,
    withdrawn_at BIGINT,
    permissions TEXT NOT NULL DEFAULT '["*"]'
);

CREATE UNIQUE INDEX credentials_in_force ON credentials (kind, name) WHERE withdrawn_at IS NULL;

CREATE TABLE edge_activity (
    edge TEXT NOT NULL PRIMARY KEY,
    seen_at BIGINT NOT NULL,
    position BIGINT NOT NULL
);

-- Blocks of status indices that were taken, by whichever process. A row is never removed.
CREATE TABLE status_blocks (
    block BIGINT NOT NULL PRIMARY KEY CHECK (block BETWEEN 0 AND 65535),
    taken_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- What the feed tells, in commit order: positions are assigned under a lock that lasts until the commit.
CREATE TABLE feed_log (
    position BIGINT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('index', 'cutoff', 'keys', 'plans', 'reuse')),
    status_index BIGINT,
    dimension TEXT,
    issuer TEXT,
    value TEXT,
    issued_before BIGINT,
    until BIGINT NOT NULL,  -- after this the entry concerns no token
    body TEXT,
    reason TEXT,
    actor TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE UNIQUE INDEX feed_log_indices ON feed_log (status_index) WHERE kind = 'index';
CREATE INDEX feed_log_cutoffs ON feed_log (dimension, value) WHERE kind = 'cutoff';
CREATE INDEX feed_log_kinds ON feed_log (kind, position);
CREATE INDEX feed_log_ends ON feed_log (until);

-- Totals of a bucket in a window. Kept for good: bills are made from them.
CREATE TABLE quota_accounts (
    bucket TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    granted BIGINT NOT NULL,
    returned BIGINT NOT NULL,
    allowed BIGINT NOT NULL,
    denied BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    PRIMARY KEY (bucket, window_start)
);

CREATE TABLE quota_holdings (
    bucket TEXT NOT NULL,
    window_start BIGINT NOT NULL,
    edge TEXT NOT NULL,
    epoch TEXT NOT NULL,
    granted BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    returned BIGINT NOT NULL,
    touched_at BIGINT NOT NULL,
    PRIMARY KEY (bucket, window_start, edge, epoch)
);

CREATE INDEX quota_holdings_idle ON quota_holdings (touched_at);

-- The last batch of each spender and the bytes it was answered with.
CREATE TABLE quota_answers (
    edge TEXT NOT NULL,
    epoch TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    answer BYTEA NOT NULL,
    answered_at BIGINT NOT NULL,
    PRIMARY KEY (edge, epoch)
);

-- Which user has a name. In the home database, also when users are spread over several.
CREATE TABLE user_names (
    username TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE,
    created_at BIGINT NOT NULL
);

-- Which database has a slot of users (home), and the slots that this database has (each).
CREATE TABLE slots (
    slot BIGINT NOT NULL PRIMARY KEY CHECK (slot BETWEEN 0 AND 255),
    shard BIGINT NOT NULL,
    moving_to BIGINT
);
CREATE TABLE owned_slots (slot BIGINT NOT NULL PRIMARY KEY);

CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    client_id TEXT NOT NULL,
    device TEXT,
    scope TEXT NOT NULL,
    tenant TEXT,
    created_at BIGINT NOT NULL,      -- when the password was given
    last_used_at BIGINT NOT NULL,
    last_issued_at BIGINT NOT NULL,  -- `iat` of the latest access token
    token_until BIGINT NOT NULL,     -- `exp` of the latest access token
    idle_until BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,      -- the absolute end
    generation BIGINT NOT NULL,      -- of the refresh token that is current
    ended_at BIGINT,
    end_reason TEXT
);
CREATE INDEX sessions_by_user ON sessions (user_id, created_at);
CREATE INDEX sessions_by_client ON sessions (client_id, last_issued_at);
CREATE INDEX sessions_by_tenant ON sessions (tenant, last_issued_at);
CREATE INDEX sessions_by_issue ON sessions (last_issued_at);
CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    digest BYTEA NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    session_id TEXT NOT NULL,
    generation BIGINT NOT NULL,
    nonce BYTEA NOT NULL CHECK (length(nonce) = 16),
    created_at BIGINT NOT NULL,
    rotated_at_ms BIGINT
);
CREATE UNIQUE INDEX refresh_tokens_by_session ON refresh_tokens (session_id, generation);

CREATE TABLE devices (
    digest BYTEA NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    user_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);
CREATE INDEX devices_by_user ON devices (user_id, seen_at);

-- Revocations that were decided with a user's rows and are not yet in the feed's log.
CREATE TABLE outbox (
    id TEXT NOT NULL PRIMARY KEY,
    dimension TEXT NOT NULL,
    value TEXT NOT NULL,
    ends_sessions BIGINT NOT NULL,
    reason TEXT,
    actor TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

-- Wishes of other databases that the log has, for as long as they might be published again.
CREATE TABLE outbox_published (
    id TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
);

CREATE TABLE login_events (
    id TEXT NOT NULL,
    at BIGINT NOT NULL,
    user_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    address TEXT,
    device TEXT,
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE login_events_rest PARTITION OF login_events DEFAULT;
CREATE INDEX login_events_by_user ON login_events (user_id, at);
CREATE INDEX login_events_by_date ON login_events (at);

-- By what a token has to be dated, and which sessions are over. Kept as long as a session can last.
CREATE TABLE cutoffs (
    dimension TEXT NOT NULL,
    value TEXT NOT NULL,
    issued_before BIGINT NOT NULL,  -- access tokens dated before this are revoked
    began_before BIGINT,            -- sessions that began before this are over
    until BIGINT NOT NULL,
    PRIMARY KEY (dimension, value)
);

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    disabled BIGINT NOT NULL DEFAULT 0,
    version BIGINT NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE roles (
    name TEXT NOT NULL PRIMARY KEY,
    permissions TEXT NOT NULL,  -- a JSON array of strings
    description TEXT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE clients (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    auth TEXT NOT NULL,  -- JSON: how the client authenticates
    grants TEXT NOT NULL,
    scopes TEXT NOT NULL,
    roles TEXT NOT NULL,
    plan TEXT NOT NULL,
    tenant TEXT,
    may_introspect BIGINT NOT NULL DEFAULT 0,
    disabled BIGINT NOT NULL DEFAULT 0,
    version BIGINT NOT NULL DEFAULT 1,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE used_assertions (
    digest BYTEA NOT NULL PRIMARY KEY CHECK (length(digest) = 32),
    until BIGINT NOT NULL
);
CREATE INDEX used_assertions_by_end ON used_assertions (until);

CREATE TABLE signing_keys (
    kid TEXT NOT NULL PRIMARY KEY,
    alg TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    published_at BIGINT NOT NULL,
    active_at BIGINT,
    retiring_at BIGINT,
    ended_at BIGINT,
    token_seconds BIGINT NOT NULL,
    sealed BYTEA,  -- none once it signs no more
    public_jwk TEXT NOT NULL
);

CREATE TABLE sealed_secrets (
    name TEXT NOT NULL PRIMARY KEY,
    sealed BYTEA NOT NULL
);


CREATE TABLE idempotency_keys (
    operator TEXT NOT NULL,
    key TEXT NOT NULL,
    request BYTEA NOT NULL,
    status BIGINT NOT NULL,
    headers TEXT NOT NULL,
    body BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (operator, key)
);
CREATE INDEX idempotency_keys_by_date ON idempotency_keys (created_at);

CREATE TABLE audit (
    id TEXT NOT NULL,  -- ordered by date
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    address TEXT,
    detail TEXT NOT NULL,
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE audit_rest PARTITION OF audit DEFAULT;
CREATE INDEX audit_by_date ON audit (at);
CREATE INDEX audit_by_actor ON audit (actor, id);
CREATE INDEX audit_by_target ON audit (target, id);
CREATE INDEX audit_by_action ON audit (action, id);

-- What is hot: principals to have in memory before the first request.
CREATE TABLE hot_principals (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    uses BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE FUNCTION audit_is_not_changed() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_not_changed();
