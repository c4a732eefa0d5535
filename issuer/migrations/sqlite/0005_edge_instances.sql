-- What each process of an edge said of itself last. It is shown for a day after it fell silent.

CREATE TABLE edge_instances (
    edge TEXT NOT NULL,
    instance TEXT NOT NULL,  -- random, of the process
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    workers INTEGER NOT NULL,
    epoch TEXT,
    position INTEGER,
    enforced INTEGER,
    enforced_at_ms INTEGER NOT NULL,
    state_as_of_ms INTEGER,
    issuer_state TEXT NOT NULL,
    seen_at_ms INTEGER NOT NULL,
    PRIMARY KEY (edge, instance)
) STRICT, WITHOUT ROWID;

CREATE INDEX edge_instances_by_date ON edge_instances (seen_at_ms);
