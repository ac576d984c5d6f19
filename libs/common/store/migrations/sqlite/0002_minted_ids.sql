-- As in Postgres but for partitions. WITHOUT ROWID: the primary key is the table,
-- so a batch writes one tree and a lookup reads one.
CREATE TABLE minted_ids (
    id          TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    account_id  TEXT NOT NULL,
    PRIMARY KEY (id, created_at)
) STRICT, WITHOUT ROWID;
