-- As in Postgres.
CREATE TABLE rollups (
    step_seconds           INTEGER NOT NULL,
    starts_at              TEXT NOT NULL,
    model                  TEXT NOT NULL,
    resource_id            TEXT NOT NULL,
    proxy_key_id           TEXT NOT NULL,
    requests               INTEGER NOT NULL DEFAULT 0,
    failed                 INTEGER NOT NULL DEFAULT 0,
    cancelled              INTEGER NOT NULL DEFAULT 0,
    interrupted            INTEGER NOT NULL DEFAULT 0,
    attempts               INTEGER NOT NULL DEFAULT 0,
    failovers              INTEGER NOT NULL DEFAULT 0,
    input_tokens           INTEGER NOT NULL DEFAULT 0,
    cached_tokens          INTEGER NOT NULL DEFAULT 0,
    output_tokens          INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens       INTEGER NOT NULL DEFAULT 0,
    latency_ms             REAL NOT NULL DEFAULT 0,
    first_token_ms         REAL NOT NULL DEFAULT 0,
    cost                   REAL,
    latency_25             INTEGER NOT NULL DEFAULT 0,
    latency_50             INTEGER NOT NULL DEFAULT 0,
    latency_100            INTEGER NOT NULL DEFAULT 0,
    latency_200            INTEGER NOT NULL DEFAULT 0,
    latency_400            INTEGER NOT NULL DEFAULT 0,
    latency_800            INTEGER NOT NULL DEFAULT 0,
    latency_1600           INTEGER NOT NULL DEFAULT 0,
    latency_3200           INTEGER NOT NULL DEFAULT 0,
    latency_6400           INTEGER NOT NULL DEFAULT 0,
    latency_12800          INTEGER NOT NULL DEFAULT 0,
    latency_25600          INTEGER NOT NULL DEFAULT 0,
    latency_51200          INTEGER NOT NULL DEFAULT 0,
    latency_102400         INTEGER NOT NULL DEFAULT 0,
    latency_204800         INTEGER NOT NULL DEFAULT 0,
    latency_409600         INTEGER NOT NULL DEFAULT 0,
    latency_longer         INTEGER NOT NULL DEFAULT 0,
    first_token_25         INTEGER NOT NULL DEFAULT 0,
    first_token_50         INTEGER NOT NULL DEFAULT 0,
    first_token_100        INTEGER NOT NULL DEFAULT 0,
    first_token_200        INTEGER NOT NULL DEFAULT 0,
    first_token_400        INTEGER NOT NULL DEFAULT 0,
    first_token_800        INTEGER NOT NULL DEFAULT 0,
    first_token_1600       INTEGER NOT NULL DEFAULT 0,
    first_token_3200       INTEGER NOT NULL DEFAULT 0,
    first_token_6400       INTEGER NOT NULL DEFAULT 0,
    first_token_12800      INTEGER NOT NULL DEFAULT 0,
    first_token_25600      INTEGER NOT NULL DEFAULT 0,
    first_token_51200      INTEGER NOT NULL DEFAULT 0,
    first_token_102400     INTEGER NOT NULL DEFAULT 0,
    first_token_204800     INTEGER NOT NULL DEFAULT 0,
    first_token_409600     INTEGER NOT NULL DEFAULT 0,
    first_token_longer     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (step_seconds, starts_at, model, resource_id, proxy_key_id)
) STRICT, WITHOUT ROWID;

-- For filters of GET /admin/requests. Most requests are completed, so one small index
-- finds those by outcome, status 400 and above, or error code.
CREATE INDEX requests_by_key
    ON requests (proxy_key_id, created_at, id) WHERE proxy_key_id IS NOT NULL;
CREATE INDEX requests_by_team
    ON requests (team_id, created_at, id) WHERE team_id IS NOT NULL;
CREATE INDEX requests_by_model
    ON requests (model, created_at, id) WHERE model IS NOT NULL;
CREATE INDEX requests_not_completed
    ON requests (created_at, id) WHERE outcome <> 'completed';
