-- The first tables, as in Postgres but for partitions. Times
-- are ISO 8601 UTC text with milliseconds and 'Z', which sorts as time does;
-- JSON is text, booleans are 0 and 1.

CREATE TABLE sessions (
    id               TEXT PRIMARY KEY,
    name             TEXT,
    first_seen_at    TEXT NOT NULL,
    last_seen_at     TEXT NOT NULL,
    requests         INTEGER NOT NULL DEFAULT 0,
    total_tokens     INTEGER NOT NULL DEFAULT 0,
    last_resource_id TEXT
) STRICT;
CREATE INDEX sessions_recent ON sessions (last_seen_at, id);
CREATE INDEX sessions_by_resource ON sessions (last_resource_id, last_seen_at, id);

CREATE TABLE requests (
    id                   TEXT NOT NULL,
    created_at           TEXT NOT NULL,
    completed_at         TEXT NOT NULL,
    session_id           TEXT,
    session_name         TEXT,
    pool_id              TEXT,
    resource_id          TEXT,
    account_id           TEXT,
    proxy_key_id         TEXT,
    method               TEXT NOT NULL,
    path                 TEXT NOT NULL,
    model                TEXT,
    upstream_model       TEXT,
    transport            TEXT NOT NULL,
    status_code          INTEGER,
    outcome              TEXT NOT NULL,
    error_code           TEXT,
    error_message        TEXT,
    attempts             INTEGER NOT NULL,
    latency_ms           REAL,
    upstream_ms          REAL,
    first_token_ms       REAL,
    overhead_ms          REAL,
    input_tokens         INTEGER,
    cached_tokens        INTEGER,
    output_tokens        INTEGER,
    reasoning_tokens     INTEGER,
    total_tokens         INTEGER,
    usage_state          TEXT NOT NULL,
    request_bytes        INTEGER NOT NULL,
    response_bytes       INTEGER NOT NULL,
    service_tier         TEXT,
    response_id          TEXT,
    previous_response_id TEXT,
    gateway_id           TEXT,
    PRIMARY KEY (id, created_at)
) STRICT;
CREATE INDEX requests_recent ON requests (created_at, id);
CREATE INDEX requests_by_session
    ON requests (session_id, created_at, id) WHERE session_id IS NOT NULL;
CREATE INDEX requests_by_resource
    ON requests (resource_id, created_at, id) WHERE resource_id IS NOT NULL;
CREATE INDEX requests_by_response
    ON requests (response_id) WHERE response_id IS NOT NULL;

CREATE TABLE decisions (
    id          TEXT NOT NULL,
    request_id  TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    session_id  TEXT,
    pool_id     TEXT,
    resource_id TEXT,
    reason      TEXT NOT NULL,
    candidates  TEXT NOT NULL,
    degraded    INTEGER NOT NULL,
    PRIMARY KEY (id, created_at)
) STRICT;
CREATE INDEX decisions_recent ON decisions (created_at, id);
CREATE INDEX decisions_by_request ON decisions (request_id);
CREATE INDEX decisions_by_session
    ON decisions (session_id, created_at, id) WHERE session_id IS NOT NULL;
CREATE INDEX decisions_by_resource
    ON decisions (resource_id, created_at, id) WHERE resource_id IS NOT NULL;

-- Every event as it came. A request's own row follows the rule of `requests`:
-- a real outcome takes the place of `interrupted`.
CREATE TABLE events (
    id         TEXT NOT NULL,
    kind       TEXT NOT NULL,
    created_at TEXT NOT NULL,
    data       TEXT NOT NULL,
    PRIMARY KEY (id, kind, created_at)
) STRICT;
CREATE INDEX events_by_kind ON events (kind, created_at);

-- Captured bodies, compressed, apart from the hot rows. `body` is encoded as
-- `encoding` says; `original_bytes` counts what travelled.
CREATE TABLE payloads (
    request_id     TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    direction      TEXT NOT NULL,
    content_type   TEXT,
    encoding       TEXT NOT NULL,
    original_bytes INTEGER NOT NULL,
    truncated      INTEGER NOT NULL,
    body           BLOB NOT NULL,
    PRIMARY KEY (request_id, direction, created_at)
) STRICT;

CREATE TABLE providers (
    id             TEXT PRIMARY KEY,
    name           TEXT NOT NULL,
    provider_type  TEXT NOT NULL,
    base_url       TEXT NOT NULL,
    wire_api       TEXT NOT NULL,
    auth_type      TEXT NOT NULL,
    api_key_sealed TEXT,
    credential_ref TEXT,
    pool_id        TEXT,
    account_id     TEXT,
    weight         REAL NOT NULL DEFAULT 1 CHECK (weight > 0),
    enabled        INTEGER NOT NULL DEFAULT 1,
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL
) STRICT;

CREATE TABLE models (
    alias       TEXT PRIMARY KEY,
    provider_id TEXT NOT NULL REFERENCES providers (id),
    upstream_id TEXT NOT NULL,
    enabled     INTEGER NOT NULL DEFAULT 1,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL
) STRICT;
CREATE INDEX models_by_provider ON models (provider_id);

CREATE TABLE proxy_keys (
    id                  TEXT PRIMARY KEY,
    prefix              TEXT NOT NULL,
    secret_hash         TEXT NOT NULL UNIQUE,
    name                TEXT NOT NULL,
    pools               TEXT NOT NULL DEFAULT '[]',
    expires_at          TEXT,
    requests_per_minute INTEGER,
    tokens_per_minute   INTEGER,
    enabled             INTEGER NOT NULL DEFAULT 1,
    created_at          TEXT NOT NULL,
    last_used_at        TEXT,
    revoked_at          TEXT
) STRICT;

-- Poison, with why it could not be stored. `id` is a hash of the content: the
-- same entry parked twice is one row.
CREATE TABLE dead_letters (
    id         TEXT PRIMARY KEY,
    entry_id   TEXT NOT NULL,
    event_id   TEXT,
    kind       TEXT,
    reason     TEXT NOT NULL,
    data       TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX dead_letters_recent ON dead_letters (created_at, id);

-- Rows ever stored, kept by the transaction that stores them: the ledger asks
-- often, and counting millions of rows, or rows that retention dropped, will
-- not do.
CREATE TABLE totals (
    name  TEXT PRIMARY KEY,
    total INTEGER NOT NULL
) STRICT;
INSERT INTO totals VALUES ('requests', 0);

CREATE VIEW tokens_by_day AS
SELECT substr(created_at, 1, 10) AS day,
       model,
       resource_id,
       count(*) AS requests,
       coalesce(sum(input_tokens), 0) AS input_tokens,
       coalesce(sum(cached_tokens), 0) AS cached_tokens,
       coalesce(sum(output_tokens), 0) AS output_tokens,
       coalesce(sum(reasoning_tokens), 0) AS reasoning_tokens,
       coalesce(sum(total_tokens), 0) AS total_tokens
FROM requests
GROUP BY 1, 2, 3;

CREATE VIEW failover_rate AS
SELECT substr(created_at, 1, 10) AS day,
       count(*) AS requests,
       sum(attempts > 1) AS failed_over,
       round(1.0 * sum(attempts > 1) / count(*), 4) AS rate
FROM requests
GROUP BY 1;

CREATE VIEW cache_hits_by_session AS
SELECT session_id,
       count(*) AS requests,
       sum(input_tokens) AS input_tokens,
       coalesce(sum(cached_tokens), 0) AS cached_tokens,
       round(1.0 * coalesce(sum(cached_tokens), 0) / sum(input_tokens), 4) AS hit_ratio
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
