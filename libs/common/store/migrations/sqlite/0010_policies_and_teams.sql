-- As in Postgres.
ALTER TABLE proxy_keys ADD COLUMN policy TEXT;
ALTER TABLE proxy_keys ADD COLUMN queue_weight REAL NOT NULL DEFAULT 1;
CREATE TABLE teams (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    policy     TEXT,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX proxy_keys_team ON proxy_keys (team_id) WHERE team_id IS NOT NULL;
