-- Everything the issuer must not forget. Instants are seconds since 1970 unless the name says otherwise.

CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    id TEXT NOT NULL PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    plan TEXT NOT NULL,
    roles TEXT NOT NULL,  -- a JSON array of strings, as are the scopes
    scopes TEXT NOT NULL,
    tenant TEXT,
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    client_id TEXT NOT NULL,
    device TEXT,
    scope TEXT NOT NULL,
    status_index INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_by_user ON sessions (user_id);

-- Operator and edge credentials: the digest of the secret, never the secret.
CREATE TABLE credentials (
    id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('operator', 'edge')),
    name TEXT NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    created_at INTEGER NOT NULL,
    withdrawn_at INTEGER
) STRICT;

CREATE UNIQUE INDEX credentials_in_force ON credentials (kind, name) WHERE withdrawn_at IS NULL;

CREATE TABLE edge_activity (
    edge TEXT NOT NULL PRIMARY KEY,
    seen_at INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Blocks of status indices that were taken, by whichever process. A row is never removed.
CREATE TABLE status_blocks (
    block INTEGER NOT NULL PRIMARY KEY CHECK (block BETWEEN 0 AND 65535),
    taken_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- What the feed tells, in commit order: positions are assigned inside the one write transaction there can be.
CREATE TABLE feed_log (
    position INTEGER NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('index', 'cutoff', 'keys', 'plans', 'reuse')),
    status_index INTEGER,
    dimension TEXT,
    issuer TEXT,
    value TEXT,
    issued_before INTEGER,
    until INTEGER NOT NULL,  -- after this the entry concerns no token
    body TEXT,
    reason TEXT,
    actor TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX feed_log_indices ON feed_log (status_index) WHERE kind = 'index';
CREATE INDEX feed_log_cutoffs ON feed_log (dimension, value) WHERE kind = 'cutoff';
CREATE INDEX feed_log_kinds ON feed_log (kind, position);
CREATE INDEX feed_log_ends ON feed_log (until);

-- Totals of a bucket in a window. Kept for good: bills are made from them.
CREATE TABLE quota_accounts (
    bucket TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    granted INTEGER NOT NULL,
    returned INTEGER NOT NULL,
    allowed INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    PRIMARY KEY (bucket, window_start)
) STRICT, WITHOUT ROWID;

CREATE TABLE quota_holdings (
    bucket TEXT NOT NULL,
    window_start INTEGER NOT NULL,
    edge TEXT NOT NULL,
    epoch TEXT NOT NULL,
    granted INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    returned INTEGER NOT NULL,
    touched_at INTEGER NOT NULL,
    PRIMARY KEY (bucket, window_start, edge, epoch)
) STRICT, WITHOUT ROWID;

CREATE INDEX quota_holdings_idle ON quota_holdings (touched_at);

-- The last batch of each spender and the bytes it was answered with.
CREATE TABLE quota_answers (
    edge TEXT NOT NULL,
    epoch TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    answer BLOB NOT NULL,
    answered_at INTEGER NOT NULL,
    PRIMARY KEY (edge, epoch)
) STRICT, WITHOUT ROWID;
