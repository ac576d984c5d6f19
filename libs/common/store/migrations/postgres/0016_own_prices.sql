-- Prices that the admin API set. They replace all of the file's prices of their model.
-- prices: a list of objects, with the columns of `prices` but the model.
CREATE TABLE own_prices (
    model      text COLLATE "C" PRIMARY KEY,
    prices     jsonb NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Models without a price that requests used tokens of. `asked`: the model that they
-- named, if another one answered.
CREATE TABLE unpriced_models (
    model        text COLLATE "C" PRIMARY KEY,
    asked        text COLLATE "C" NOT NULL,
    last_seen_at timestamptz NOT NULL,
    requests     bigint NOT NULL
);

-- The prices that count.
CREATE VIEW price_list AS
SELECT model, service_tier, valid_from, input, cached_input, output, reasoning, false AS own
FROM prices
WHERE model NOT IN (SELECT own_prices.model FROM own_prices)
UNION ALL
SELECT own_prices.model, coalesce(price.service_tier, ''), price.valid_from, price.input,
       price.cached_input, price.output, price.reasoning, true
FROM own_prices, jsonb_to_recordset(own_prices.prices) AS price (
    service_tier text, valid_from timestamptz, input double precision,
    cached_input double precision, output double precision, reasoning double precision
);

-- What a request cost when it ended, else what it costs by the prices that count: the
-- price of the model that answered, else of the one that was asked for; of these that of the service tier, else the general one; the newest that was valid. `unpriced`
-- counts requests that used tokens and have none.
CREATE OR REPLACE VIEW costs_by_day AS
WITH known AS MATERIALIZED (SELECT * FROM price_list)
SELECT (created_at AT TIME ZONE 'UTC')::date AS day,
       requests.model,
       resource_id,
       count(*) AS requests,
       count(*) FILTER (
           WHERE total_tokens > 0 AND cost_nanos IS NULL AND price.input IS NULL
       ) AS unpriced,
       round(coalesce(sum(coalesce(cost_nanos / 1000::numeric, (
           (coalesce(input_tokens, 0) - coalesce(cached_tokens, 0)) * price.input
           + coalesce(cached_tokens, 0) * price.cached_input
           + coalesce(output_tokens, 0) * price.output
           + coalesce(reasoning_tokens, 0)
             * (coalesce(price.reasoning, price.output) - price.output)
       )::numeric)), 0) / 1000000, 6)::double precision AS cost
FROM requests
LEFT JOIN LATERAL (
    SELECT known.input, known.cached_input, known.output, known.reasoning
    FROM known
    WHERE known.model IN (requests.upstream_model, requests.model)
      AND known.service_tier IN ('', requests.service_tier)
      AND known.valid_from <= requests.created_at
    ORDER BY (known.model = requests.upstream_model) DESC NULLS LAST,
             (known.service_tier <> '') DESC, known.valid_from DESC
    LIMIT 1
) AS price ON true
GROUP BY 1, 2, 3;
