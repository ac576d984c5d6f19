-- Retention deletes the oldest rows a few thousand at a time, and finds them by these.
CREATE INDEX minted_ids_recent ON minted_ids (created_at);
CREATE INDEX payloads_recent ON payloads (created_at);

-- What the operator pays, per million tokens; written whole from PROXY_PRICES_FILE.
CREATE TABLE prices (
    model        TEXT NOT NULL,
    valid_from   TEXT NOT NULL,
    input        REAL NOT NULL,
    cached_input REAL NOT NULL,
    output       REAL NOT NULL,
    PRIMARY KEY (model, valid_from)
) STRICT;

-- The price of the model that answered, else of the one that was asked for; the
-- newest that was valid. `unpriced` counts requests that used tokens and have none.
CREATE VIEW costs_by_day AS
SELECT substr(created_at, 1, 10) AS day,
       used.model,
       resource_id,
       count(*) AS requests,
       coalesce(sum(total_tokens > 0 AND price.input IS NULL), 0) AS unpriced,
       round(coalesce(sum(
           (coalesce(input_tokens, 0) - coalesce(cached_tokens, 0)) * price.input
           + coalesce(cached_tokens, 0) * price.cached_input
           + coalesce(output_tokens, 0) * price.output
       ), 0) / 1000000, 6) AS cost
FROM (
    SELECT *, coalesce(
        (SELECT prices.rowid FROM prices
         WHERE prices.model = asked.upstream_model
           AND prices.valid_from <= asked.created_at
         ORDER BY prices.valid_from DESC LIMIT 1),
        (SELECT prices.rowid FROM prices
         WHERE prices.model = asked.model AND prices.valid_from <= asked.created_at
         ORDER BY prices.valid_from DESC LIMIT 1)
    ) AS price_row
    FROM requests AS asked
) AS used
LEFT JOIN prices AS price ON price.rowid = used.price_row
GROUP BY 1, 2, 3;

CREATE VIEW tokens_by_session AS
SELECT substr(created_at, 1, 10) AS day,
       session_id,
       max(session_name) AS session_name,
       count(*) AS requests,
       coalesce(sum(input_tokens), 0) AS input_tokens,
       coalesce(sum(cached_tokens), 0) AS cached_tokens,
       coalesce(sum(output_tokens), 0) AS output_tokens,
       coalesce(sum(total_tokens), 0) AS total_tokens
FROM requests
WHERE session_id IS NOT NULL
GROUP BY 1, 2;

CREATE VIEW cache_hits_by_day AS
SELECT substr(created_at, 1, 10) AS day,
       model,
       resource_id,
       count(*) AS requests,
       sum(input_tokens) AS input_tokens,
       coalesce(sum(cached_tokens), 0) AS cached_tokens,
       round(1.0 * coalesce(sum(cached_tokens), 0) / sum(input_tokens), 4) AS hit_ratio
FROM requests
WHERE input_tokens > 0
GROUP BY 1, 2, 3;

-- Each move from one resource to another before the first byte: which one was left,
-- why the next was chosen, and how the request ended.
CREATE VIEW failovers AS
SELECT substr(later.created_at, 1, 10) AS day,
       earlier.resource_id AS left_resource_id,
       later.resource_id,
       later.reason,
       requests.outcome,
       requests.status_code,
       count(*) AS times
FROM decisions AS later
JOIN decisions AS earlier
  ON earlier.request_id = later.request_id AND earlier.attempt = later.attempt - 1
LEFT JOIN requests ON requests.id = later.request_id
WHERE later.attempt > 1
GROUP BY 1, 2, 3, 4, 5, 6;

CREATE VIEW slowest_first_tokens AS
SELECT id, created_at, session_id, resource_id, model, outcome, attempts,
       first_token_ms, upstream_ms, latency_ms, input_tokens, cached_tokens
FROM requests
WHERE first_token_ms IS NOT NULL
ORDER BY first_token_ms DESC
LIMIT 100;
