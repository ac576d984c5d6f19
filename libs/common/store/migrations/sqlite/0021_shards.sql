-- The shard of a gateway, as in PostgreSQL. A stack on SQLite has one, so nothing is told to
-- others.
ALTER TABLE gateways ADD COLUMN shard TEXT NOT NULL DEFAULT 'rpx';

-- Work that one process does.
CREATE TABLE leases (
    role       TEXT PRIMARY KEY,
    holder     TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT;
