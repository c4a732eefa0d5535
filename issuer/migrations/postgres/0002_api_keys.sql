-- API keys: the digest of the secret, never the secret. In the home database, also when users are spread over several.
CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,  -- the public part of the key
    digest BYTEA NOT NULL CHECK (length(digest) = 32),
    owner_kind TEXT NOT NULL CHECK (owner_kind IN ('user', 'client')),
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,  -- a JSON array of strings
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    over_at BIGINT  -- from when on it is no key any more: the earlier of the two
);
CREATE INDEX api_keys_by_owner ON api_keys (owner_kind, owner, id);
CREATE INDEX api_keys_by_end ON api_keys (over_at) WHERE over_at IS NOT NULL;
