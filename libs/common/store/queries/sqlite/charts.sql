-- What the requests of each step since a time add up to.
SELECT CAST(strftime('%s', starts_at) AS INTEGER) / :step * :step AS at,
       sum(requests) AS requests, sum(failed) AS failed, sum(cancelled) AS cancelled,
       sum(interrupted) AS interrupted, sum(attempts) AS attempts,
       sum(failovers) AS failovers, sum(input_tokens) AS input_tokens,
       sum(cached_tokens) AS cached_tokens, sum(output_tokens) AS output_tokens,
       sum(reasoning_tokens) AS reasoning_tokens, sum(latency_25) AS latency_25,
       sum(latency_50) AS latency_50, sum(latency_100) AS latency_100,
       sum(latency_200) AS latency_200, sum(latency_400) AS latency_400,
       sum(latency_800) AS latency_800, sum(latency_1600) AS latency_1600,
       sum(latency_3200) AS latency_3200, sum(latency_6400) AS latency_6400,
       sum(latency_12800) AS latency_12800, sum(latency_25600) AS latency_25600,
       sum(latency_51200) AS latency_51200, sum(latency_102400) AS latency_102400,
       sum(latency_204800) AS latency_204800, sum(latency_409600) AS latency_409600,
       sum(latency_longer) AS latency_longer, sum(first_token_25) AS first_token_25,
       sum(first_token_50) AS first_token_50, sum(first_token_100) AS first_token_100,
       sum(first_token_200) AS first_token_200, sum(first_token_400) AS first_token_400,
       sum(first_token_800) AS first_token_800,
       sum(first_token_1600) AS first_token_1600,
       sum(first_token_3200) AS first_token_3200,
       sum(first_token_6400) AS first_token_6400,
       sum(first_token_12800) AS first_token_12800,
       sum(first_token_25600) AS first_token_25600,
       sum(first_token_51200) AS first_token_51200,
       sum(first_token_102400) AS first_token_102400,
       sum(first_token_204800) AS first_token_204800,
       sum(first_token_409600) AS first_token_409600,
       sum(first_token_longer) AS first_token_longer, sum(cost) AS cost
FROM rollups
WHERE step_seconds = :grain AND starts_at >= :since
  AND (:model IS NULL OR model = :model)
  AND (:resource_id IS NULL OR resource_id = :resource_id)
  AND (:proxy_key_id IS NULL OR proxy_key_id = :proxy_key_id)
  AND (:team_id IS NULL
       OR proxy_key_id IN (SELECT id FROM proxy_keys WHERE team_id = :team_id))
GROUP BY 1
