-- The cost of a request that has no cost of its own, as the view costs_by_day has it; no
-- row if its model has no price.
SELECT (
           (coalesce(:input_tokens::bigint, 0) - coalesce(:cached_tokens::bigint, 0))
           * input
           + coalesce(:cached_tokens::bigint, 0) * cached_input
           + coalesce(:output_tokens::bigint, 0) * output
           + coalesce(:reasoning_tokens::bigint, 0)
             * (coalesce(reasoning, output) - output)
       ) / 1000000 AS cost
FROM price_list
WHERE model IN (:upstream_model::text, :model::text)
  AND service_tier IN ('', :service_tier::text)
  AND valid_from <= :created_at::timestamptz
ORDER BY (model = :upstream_model::text) DESC, (service_tier <> '') DESC, valid_from DESC
LIMIT 1
