-- As in Postgres.
CREATE TABLE own_prices (
    model      TEXT PRIMARY KEY,
    prices     TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

CREATE TABLE unpriced_models (
    model        TEXT PRIMARY KEY,
    asked        TEXT NOT NULL,
    last_seen_at TEXT NOT NULL,
    requests     INTEGER NOT NULL
) STRICT;

CREATE VIEW price_list AS
SELECT model, service_tier, valid_from, input, cached_input, output, reasoning, 0 AS own
FROM prices
WHERE model NOT IN (SELECT own_prices.model FROM own_prices)
UNION ALL
SELECT own_prices.model,
       coalesce(price.value ->> 'service_tier', ''),
       price.value ->> 'valid_from',
       price.value ->> 'input',
       price.value ->> 'cached_input',
       price.value ->> 'output',
       price.value ->> 'reasoning',
       1
FROM own_prices, json_each(own_prices.prices) AS price;

CREATE VIEW costs_by_day AS
WITH known AS MATERIALIZED (SELECT row_number() OVER () AS number, * FROM price_list)
SELECT substr(created_at, 1, 10) AS day,
       used.model,
       resource_id,
       count(*) AS requests,
       coalesce(sum(
           total_tokens > 0 AND cost_nanos IS NULL AND price.input IS NULL
       ), 0) AS unpriced,
       round(coalesce(sum(coalesce(cost_nanos / 1000.0,
           (coalesce(input_tokens, 0) - coalesce(cached_tokens, 0)) * price.input
           + coalesce(cached_tokens, 0) * price.cached_input
           + coalesce(output_tokens, 0) * price.output
           + coalesce(reasoning_tokens, 0)
             * (coalesce(price.reasoning, price.output) - price.output)
       )), 0) / 1000000, 6) AS cost
FROM (
    SELECT *, coalesce(
        (SELECT number FROM known
         WHERE known.model = asked.upstream_model AND known.service_tier = asked.service_tier
           AND known.valid_from <= asked.created_at
         ORDER BY known.valid_from DESC LIMIT 1),
        (SELECT number FROM known
         WHERE known.model = asked.upstream_model AND known.service_tier = ''
           AND known.valid_from <= asked.created_at
         ORDER BY known.valid_from DESC LIMIT 1),
        (SELECT number FROM known
         WHERE known.model = asked.model AND known.service_tier = asked.service_tier
           AND known.valid_from <= asked.created_at
         ORDER BY known.valid_from DESC LIMIT 1),
        (SELECT number FROM known
         WHERE known.model = asked.model AND known.service_tier = ''
           AND known.valid_from <= asked.created_at
         ORDER BY known.valid_from DESC LIMIT 1)
    ) AS price_number
    FROM requests AS asked
) AS used
LEFT JOIN known AS price ON price.number = used.price_number
GROUP BY 1, 2, 3;
