-- The first tables. requests, decisions, events and payloads
-- are partitioned by UTC day on created_at, so that retention drops a partition
-- instead of deleting rows. Each has a default partition: a row whose day nobody
-- prepared is kept there, never refused.
--
-- Ids compare bytewise (COLLATE "C"): cheaper, and the same order as in SQLite.

CREATE TABLE sessions (
    id               text COLLATE "C" PRIMARY KEY,
    name             text,
    first_seen_at    timestamptz NOT NULL,
    last_seen_at     timestamptz NOT NULL,
    requests         bigint NOT NULL DEFAULT 0,
    total_tokens     bigint NOT NULL DEFAULT 0,
    last_resource_id text
);
CREATE INDEX sessions_recent ON sessions (last_seen_at DESC, id DESC);
CREATE INDEX sessions_by_resource
    ON sessions (last_resource_id, last_seen_at DESC, id DESC);

CREATE TABLE requests (
    id                   text COLLATE "C" NOT NULL,
    created_at           timestamptz NOT NULL,
    completed_at         timestamptz NOT NULL,
    session_id           text COLLATE "C",
    session_name         text,
    pool_id              text,
    resource_id          text,
    account_id           text,
    proxy_key_id         text,
    method               text NOT NULL,
    path                 text NOT NULL,
    model                text,
    upstream_model       text,
    transport            text NOT NULL,
    status_code          integer,
    outcome              text NOT NULL,
    error_code           text,
    error_message        text,
    attempts             integer NOT NULL,
    latency_ms           double precision,
    upstream_ms          double precision,
    first_token_ms       double precision,
    overhead_ms          double precision,
    input_tokens         bigint,
    cached_tokens        bigint,
    output_tokens        bigint,
    reasoning_tokens     bigint,
    total_tokens         bigint,
    usage_state          text NOT NULL,
    request_bytes        bigint NOT NULL,
    response_bytes       bigint NOT NULL,
    service_tier         text,
    response_id          text,
    previous_response_id text,
    gateway_id           text,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE requests_default PARTITION OF requests DEFAULT;
CREATE INDEX requests_recent ON requests (created_at DESC, id DESC);
CREATE INDEX requests_by_session
    ON requests (session_id, created_at DESC, id DESC) WHERE session_id IS NOT NULL;
CREATE INDEX requests_by_resource
    ON requests (resource_id, created_at DESC, id DESC) WHERE resource_id IS NOT NULL;
CREATE INDEX requests_by_response
    ON requests (response_id) WHERE response_id IS NOT NULL;

CREATE TABLE decisions (
    id          text COLLATE "C" NOT NULL,
    request_id  text COLLATE "C" NOT NULL,
    attempt     integer NOT NULL,
    created_at  timestamptz NOT NULL,
    session_id  text COLLATE "C",
    pool_id     text,
    resource_id text,
    reason      text NOT NULL,
    candidates  jsonb NOT NULL,
    degraded    boolean NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE decisions_default PARTITION OF decisions DEFAULT;
CREATE INDEX decisions_recent ON decisions (created_at DESC, id DESC);
CREATE INDEX decisions_by_request ON decisions (request_id);
CREATE INDEX decisions_by_session
    ON decisions (session_id, created_at DESC, id DESC) WHERE session_id IS NOT NULL;
CREATE INDEX decisions_by_resource
    ON decisions (resource_id, created_at DESC, id DESC) WHERE resource_id IS NOT NULL;

-- Every event as it came. A request's own row follows the rule of `requests`:
-- a real outcome takes the place of `interrupted`.
CREATE TABLE events (
    id         text COLLATE "C" NOT NULL,
    kind       text NOT NULL,
    created_at timestamptz NOT NULL,
    data       jsonb NOT NULL,
    PRIMARY KEY (id, kind, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE INDEX events_by_kind ON events (kind, created_at DESC);

-- Captured bodies, compressed, apart from the hot rows. `body` is encoded as
-- `encoding` says; `original_bytes` counts what travelled.
CREATE TABLE payloads (
    request_id     text COLLATE "C" NOT NULL,
    created_at     timestamptz NOT NULL,
    direction      text NOT NULL,
    content_type   text,
    encoding       text NOT NULL,
    original_bytes bigint NOT NULL,
    truncated      boolean NOT NULL,
    body           bytea NOT NULL,
    PRIMARY KEY (request_id, direction, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE payloads_default PARTITION OF payloads DEFAULT;

CREATE TABLE providers (
    id             text COLLATE "C" PRIMARY KEY,
    name           text NOT NULL,
    provider_type  text NOT NULL,
    base_url       text NOT NULL,
    wire_api       text NOT NULL,
    auth_type      text NOT NULL,
    api_key_sealed text,
    credential_ref text,
    pool_id        text,
    account_id     text,
    weight         double precision NOT NULL DEFAULT 1 CHECK (weight > 0),
    enabled        boolean NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);

CREATE TABLE models (
    alias       text COLLATE "C" PRIMARY KEY,
    provider_id text COLLATE "C" NOT NULL REFERENCES providers (id),
    upstream_id text NOT NULL,
    enabled     boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);
CREATE INDEX models_by_provider ON models (provider_id);

CREATE TABLE proxy_keys (
    id                  text COLLATE "C" PRIMARY KEY,
    prefix              text NOT NULL,
    secret_hash         text NOT NULL UNIQUE,
    name                text NOT NULL,
    pools               jsonb NOT NULL DEFAULT '[]',
    expires_at          timestamptz,
    requests_per_minute bigint,
    tokens_per_minute   bigint,
    enabled             boolean NOT NULL DEFAULT true,
    created_at          timestamptz NOT NULL,
    last_used_at        timestamptz,
    revoked_at          timestamptz
);

-- Poison, with why it could not be stored. `id` is a hash of the content: the
-- same entry parked twice is one row.
CREATE TABLE dead_letters (
    id         text COLLATE "C" PRIMARY KEY,
    entry_id   text NOT NULL,
    event_id   text,
    kind       text,
    reason     text NOT NULL,
    data       text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX dead_letters_recent ON dead_letters (created_at DESC, id DESC);

-- Rows ever stored, kept by the transaction that stores them: the ledger asks
-- often, and counting millions of rows, or rows that retention dropped, will
-- not do.
CREATE TABLE totals (
    name  text PRIMARY KEY,
    total bigint NOT NULL
);
INSERT INTO totals VALUES ('requests', 0);

CREATE VIEW tokens_by_day AS
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       model,
       resource_id,
       count(*) AS requests,
       coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
       coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
       coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
       coalesce(sum(reasoning_tokens), 0)::bigint AS reasoning_tokens,
       coalesce(sum(total_tokens), 0)::bigint AS total_tokens
FROM requests
GROUP BY 1, 2, 3;

CREATE VIEW failover_rate AS
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       count(*) AS requests,
       count(*) FILTER (WHERE attempts > 1) AS failed_over,
       round(count(*) FILTER (WHERE attempts > 1)::numeric / count(*), 4)
           ::double precision AS rate
FROM requests
GROUP BY 1;

CREATE VIEW cache_hits_by_session AS
SELECT session_id,
       count(*) AS requests,
       sum(input_tokens)::bigint AS input_tokens,
       coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
       round(coalesce(sum(cached_tokens), 0) / sum(input_tokens), 4)
           ::double precision AS hit_ratio
FROM requests
WHERE session_id IS NOT NULL AND input_tokens > 0
GROUP BY 1;

CREATE VIEW slowest_requests AS
SELECT id, created_at, session_id, resource_id, model, outcome, status_code,
       attempts, latency_ms, upstream_ms, first_token_ms, overhead_ms, total_tokens
FROM requests
WHERE latency_ms IS NOT NULL
ORDER BY latency_ms DESC
LIMIT 100;

-- Make the partition of one table for one UTC day; false if it is there.
-- Rows that came before their partition move out of the default one.
CREATE FUNCTION make_partition_v1(parent text, day date) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    child text := parent || '_' || to_char(day, 'YYYYMMDD');
    lower timestamptz := day::timestamp AT TIME ZONE 'UTC';
    upper timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(quote_ident(child)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
    EXECUTE format(
        'WITH moved AS (DELETE FROM %I WHERE created_at >= $1 AND created_at < $2'
        ' RETURNING *) INSERT INTO %I SELECT * FROM moved',
        parent || '_default', child) USING lower, upper;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, child, lower, upper);
    RETURN true;
END $$;

-- Drop one table's partitions of days before `day`, and older rows that were
-- kept in the default one. Returns how many partitions went.
CREATE FUNCTION drop_partitions_v1(parent text, day date) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    child text;
    dropped integer := 0;
BEGIN
    FOR child IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = to_regclass(quote_ident(parent))
          AND c.relname ~ ('^' || parent || '_[0-9]{8}$')
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < day
    LOOP
        EXECUTE format('DROP TABLE %I', child);
        dropped := dropped + 1;
    END LOOP;
    EXECUTE format('DELETE FROM %I WHERE created_at < $1', parent || '_default')
        USING day::timestamp AT TIME ZONE 'UTC';
    RETURN dropped;
END $$;
