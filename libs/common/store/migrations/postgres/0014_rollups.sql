-- What the requests of a minute (step_seconds 60) and of a quarter of an hour (900) add up
-- to, for each model, resource and proxy key ('' for none); written by the transaction that
-- stores the requests. Minutes are kept for hours, the others as long as the requests. A
-- model has rows of its own once an answer reported its usage; 'other' are the rest.
-- `interrupted` requests count as such only, and with model ''. latency_N and
-- first_token_N count completed requests that took at most N milliseconds and more than
-- the N before; the sums latency_ms and first_token_ms are of the same requests. cost is
-- NULL if no request had a price.
CREATE TABLE rollups (
    step_seconds           integer NOT NULL,
    starts_at              timestamptz NOT NULL,
    model                  text COLLATE "C" NOT NULL,
    resource_id            text COLLATE "C" NOT NULL,
    proxy_key_id           text COLLATE "C" NOT NULL,
    requests               bigint NOT NULL DEFAULT 0,
    failed                 bigint NOT NULL DEFAULT 0,
    cancelled              bigint NOT NULL DEFAULT 0,
    interrupted            bigint NOT NULL DEFAULT 0,
    attempts               bigint NOT NULL DEFAULT 0,
    failovers              bigint NOT NULL DEFAULT 0,
    input_tokens           bigint NOT NULL DEFAULT 0,
    cached_tokens          bigint NOT NULL DEFAULT 0,
    output_tokens          bigint NOT NULL DEFAULT 0,
    reasoning_tokens       bigint NOT NULL DEFAULT 0,
    latency_ms             double precision NOT NULL DEFAULT 0,
    first_token_ms         double precision NOT NULL DEFAULT 0,
    cost                   double precision,
    latency_25             bigint NOT NULL DEFAULT 0,
    latency_50             bigint NOT NULL DEFAULT 0,
    latency_100            bigint NOT NULL DEFAULT 0,
    latency_200            bigint NOT NULL DEFAULT 0,
    latency_400            bigint NOT NULL DEFAULT 0,
    latency_800            bigint NOT NULL DEFAULT 0,
    latency_1600           bigint NOT NULL DEFAULT 0,
    latency_3200           bigint NOT NULL DEFAULT 0,
    latency_6400           bigint NOT NULL DEFAULT 0,
    latency_12800          bigint NOT NULL DEFAULT 0,
    latency_25600          bigint NOT NULL DEFAULT 0,
    latency_51200          bigint NOT NULL DEFAULT 0,
    latency_102400         bigint NOT NULL DEFAULT 0,
    latency_204800         bigint NOT NULL DEFAULT 0,
    latency_409600         bigint NOT NULL DEFAULT 0,
    latency_longer         bigint NOT NULL DEFAULT 0,
    first_token_25         bigint NOT NULL DEFAULT 0,
    first_token_50         bigint NOT NULL DEFAULT 0,
    first_token_100        bigint NOT NULL DEFAULT 0,
    first_token_200        bigint NOT NULL DEFAULT 0,
    first_token_400        bigint NOT NULL DEFAULT 0,
    first_token_800        bigint NOT NULL DEFAULT 0,
    first_token_1600       bigint NOT NULL DEFAULT 0,
    first_token_3200       bigint NOT NULL DEFAULT 0,
    first_token_6400       bigint NOT NULL DEFAULT 0,
    first_token_12800      bigint NOT NULL DEFAULT 0,
    first_token_25600      bigint NOT NULL DEFAULT 0,
    first_token_51200      bigint NOT NULL DEFAULT 0,
    first_token_102400     bigint NOT NULL DEFAULT 0,
    first_token_204800     bigint NOT NULL DEFAULT 0,
    first_token_409600     bigint NOT NULL DEFAULT 0,
    first_token_longer     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (step_seconds, starts_at, model, resource_id, proxy_key_id)
);

-- For filters of GET /admin/requests. Most requests are completed, so one small index
-- finds those by outcome, status 400 and above, or error code.
CREATE INDEX requests_by_key
    ON requests (proxy_key_id, created_at DESC, id DESC) WHERE proxy_key_id IS NOT NULL;
CREATE INDEX requests_by_team
    ON requests (team_id, created_at DESC, id DESC) WHERE team_id IS NOT NULL;
CREATE INDEX requests_by_model
    ON requests (model, created_at DESC, id DESC) WHERE model IS NOT NULL;
CREATE INDEX requests_not_completed
    ON requests (created_at DESC, id DESC) WHERE outcome <> 'completed';
