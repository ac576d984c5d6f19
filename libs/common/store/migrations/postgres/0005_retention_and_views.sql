-- Retention, a partition at a time: each in a transaction of its own, so that none
-- waits for another's readers.

-- Drop one partition, unless another process just did.
CREATE FUNCTION drop_partition_v1(child text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass(quote_ident(child)) IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', child);
    RETURN true;
END $$;

-- Delete up to `most` rows of days before `day` that were kept in the default
-- partition, because their day had no partition when they came.
CREATE FUNCTION delete_strays_v1(parent text, day date, most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    deleted integer;
BEGIN
    EXECUTE format(
        'DELETE FROM %1$I WHERE ctid IN'
        ' (SELECT ctid FROM %1$I WHERE created_at < $1 LIMIT $2)',
        parent || '_default') USING day::timestamp AT TIME ZONE 'UTC', most;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

-- What the operator pays, per million tokens; written whole from PROXY_PRICES_FILE.
CREATE TABLE prices (
    model        text COLLATE "C" NOT NULL,
    valid_from   timestamptz NOT NULL,
    input        double precision NOT NULL,
    cached_input double precision NOT NULL,
    output       double precision NOT NULL,
    PRIMARY KEY (model, valid_from)
);

-- The price of the model that answered, else of the one that was asked for; the
-- newest that was valid. `unpriced` counts requests that used tokens and have none.
CREATE VIEW costs_by_day AS
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       requests.model,
       resource_id,
       count(*) AS requests,
       count(*) FILTER (WHERE total_tokens > 0 AND price.input IS NULL) AS unpriced,
       round(coalesce(sum(
           (coalesce(input_tokens, 0) - coalesce(cached_tokens, 0)) * price.input
           + coalesce(cached_tokens, 0) * price.cached_input
           + coalesce(output_tokens, 0) * price.output
       ), 0)::numeric / 1000000, 6)::double precision AS cost
FROM requests
LEFT JOIN LATERAL (
    SELECT prices.input, prices.cached_input, prices.output
    FROM prices
    WHERE prices.model IN (requests.upstream_model, requests.model)
      AND prices.valid_from <= requests.created_at
    ORDER BY (prices.model = requests.upstream_model) DESC, prices.valid_from DESC
    LIMIT 1
) AS price ON true
GROUP BY 1, 2, 3;

CREATE VIEW tokens_by_session AS
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       session_id,
       max(session_name) AS session_name,
       count(*) AS requests,
       coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
       coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
       coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
       coalesce(sum(total_tokens), 0)::bigint AS total_tokens
FROM requests
WHERE session_id IS NOT NULL
GROUP BY 1, 2;

CREATE VIEW cache_hits_by_day AS
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       model,
       resource_id,
       count(*) AS requests,
       sum(input_tokens)::bigint AS input_tokens,
       coalesce(sum(cached_tokens), 0)::bigint AS cached_tokens,
       round(coalesce(sum(cached_tokens), 0) / sum(input_tokens), 4)
           ::double precision AS hit_ratio
FROM requests
WHERE input_tokens > 0
GROUP BY 1, 2, 3;

-- Each move from one resource to another before the first byte: which one was left,
-- why the next was chosen, and how the request ended.
CREATE VIEW failovers AS
SELECT (later.created_at AT TIME ZONE 'UTC')::date AS day,
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
