-- How long a revocation that waits can concern a token, and what housekeeping goes by.

ALTER TABLE outbox ADD COLUMN token_until INTEGER;  -- `exp` of the last token that it covers; not known when NULL
CREATE INDEX outbox_by_date ON outbox (created_at, id);

CREATE INDEX sessions_by_idleness ON sessions (idle_until);
CREATE INDEX sessions_by_ending ON sessions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX cutoffs_by_end ON cutoffs (until);
CREATE INDEX outbox_published_by_date ON outbox_published (at);
