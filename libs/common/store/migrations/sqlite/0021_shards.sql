-- The shard of a gateway, as in PostgreSQL. A stack on SQLite has one, so nothing is told to
-- others.
ALTER TABLE gateways ADD COLUMN shard TEXT NOT NULL DEFAULT 'rpx';

CREATE TABLE shards (
    name     TEXT NOT NULL,
    instance TEXT NOT NULL,
    since    TEXT NOT NULL,
    seen_at  TEXT NOT NULL,
    PRIMARY KEY (name, instance)
) STRICT;

-- Work that one process does.
CREATE TABLE leases (
    role       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;
