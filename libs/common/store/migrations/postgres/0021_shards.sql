-- Several Redis namespaces with one database: the shards of a stack (docs/adr/0014).

-- The shard whose ingest stored the report of a gateway. 'rpx' is the default namespace.
ALTER TABLE gateways ADD COLUMN shard text NOT NULL DEFAULT 'rpx';

-- Changes in the order of their commits (lock_audit), which no router's clock gives.
ALTER TABLE audit_log ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY;
CREATE UNIQUE INDEX audit_log_number ON audit_log (number);

-- Who uses this database. instance: a random name that the routers of a shard keep in its
-- Redis, so that two Redis servers of one namespace differ.
CREATE TABLE shards (
    name     text NOT NULL,
    instance text NOT NULL,
    since    timestamptz NOT NULL,
    seen_at  timestamptz NOT NULL,
    PRIMARY KEY (name, instance)
);

-- What requests of each shard used of the budgets of keys and teams, for the others: a log,
-- kept for some hours. at: the quarter of an hour in which the requests began; windows of
-- budgets begin at one. number: in the order of commits (lock_writers).
CREATE TABLE shard_spend (
    number    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stored_at timestamptz NOT NULL DEFAULT now(),
    shard     text NOT NULL,
    subject   text NOT NULL,
    at        timestamptz NOT NULL,
    tokens    bigint NOT NULL,
    nanos     bigint NOT NULL
);

-- Work that one process of all shards does.
CREATE TABLE leases (
    role       text PRIMARY KEY,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL
);

-- What a batch of a shard adds for the others, after add_batch_v1. The JSON parameters are
-- arrays of rows, or null.
CREATE FUNCTION add_shard_v1(shard_name text, new_reports json, new_spend json)
RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF new_reports IS NOT NULL AND shard_name <> 'rpx' THEN
        UPDATE gateways SET shard = shard_name
        FROM json_to_recordset(new_reports) AS told (id text)
        WHERE gateways.id = told.id AND gateways.shard <> shard_name;
    END IF;
    IF new_spend IS NOT NULL
        AND EXISTS (SELECT FROM shards WHERE shards.name <> shard_name)
    THEN
        INSERT INTO shard_spend (shard, subject, at, tokens, nanos)
        SELECT shard_name, subject, at, coalesce(tokens, 0), coalesce(nanos, 0)
        FROM json_to_recordset(new_spend)
            AS used (subject text, at timestamptz, tokens bigint, nanos bigint)
        WHERE EXISTS (
            SELECT FROM proxy_keys
            WHERE proxy_keys.id = substr(subject, 5) AND subject LIKE 'key:%'
                AND proxy_keys.budget <> '{}'
        ) OR EXISTS (
            SELECT FROM teams
            WHERE teams.id = substr(subject, 6) AND subject LIKE 'team:%'
                AND teams.budget <> '{}'
        );
    END IF;
END $$;
