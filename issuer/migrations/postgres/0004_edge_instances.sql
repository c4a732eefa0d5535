-- What each process of an edge said of itself last. It is shown for a day after it fell silent.

CREATE TABLE edge_instances (
    edge TEXT NOT NULL,
    instance TEXT NOT NULL,  -- random, of the process
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    workers BIGINT NOT NULL,
    epoch TEXT,
    position BIGINT,
    enforced BIGINT,
    enforced_at_ms BIGINT NOT NULL,
    state_as_of_ms BIGINT,
    issuer_state TEXT NOT NULL,
    seen_at_ms BIGINT NOT NULL,
    PRIMARY KEY (edge, instance)
);

CREATE INDEX edge_instances_by_date ON edge_instances (seen_at_ms);
