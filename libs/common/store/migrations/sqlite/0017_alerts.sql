-- As in Postgres.
CREATE TABLE alerts (
    id           TEXT PRIMARY KEY,
    created_at   TEXT NOT NULL,
    body         TEXT NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    due_at       TEXT NOT NULL,
    delivered_at TEXT
) STRICT;
CREATE INDEX alerts_waiting ON alerts (due_at) WHERE delivered_at IS NULL;
