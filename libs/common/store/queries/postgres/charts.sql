-- What the requests of each step since a time add up to.
SELECT extract(epoch FROM starts_at)::bigint / %(step)s::bigint * %(step)s::bigint AS at,
       sum(requests)::bigint AS requests, sum(failed)::bigint AS failed,
       sum(cancelled)::bigint AS cancelled, sum(interrupted)::bigint AS interrupted,
       sum(attempts)::bigint AS attempts, sum(failovers)::bigint AS failovers,
       sum(input_tokens)::bigint AS input_tokens,
       sum(cached_tokens)::bigint AS cached_tokens,
       sum(output_tokens)::bigint AS output_tokens,
       sum(reasoning_tokens)::bigint AS reasoning_tokens,
       sum(latency_25)::bigint AS latency_25, sum(latency_50)::bigint AS latency_50,
       sum(latency_100)::bigint AS latency_100, sum(latency_200)::bigint AS latency_200,
       sum(latency_400)::bigint AS latency_400, sum(latency_800)::bigint AS latency_800,
       sum(latency_1600)::bigint AS latency_1600,
       sum(latency_3200)::bigint AS latency_3200,
       sum(latency_6400)::bigint AS latency_6400,
       sum(latency_12800)::bigint AS latency_12800,
       sum(latency_25600)::bigint AS latency_25600,
       sum(latency_51200)::bigint AS latency_51200,
       sum(latency_102400)::bigint AS latency_102400,
       sum(latency_204800)::bigint AS latency_204800,
       sum(latency_409600)::bigint AS latency_409600,
       sum(latency_longer)::bigint AS latency_longer,
       sum(first_token_25)::bigint AS first_token_25,
       sum(first_token_50)::bigint AS first_token_50,
       sum(first_token_100)::bigint AS first_token_100,
       sum(first_token_200)::bigint AS first_token_200,
       sum(first_token_400)::bigint AS first_token_400,
       sum(first_token_800)::bigint AS first_token_800,
       sum(first_token_1600)::bigint AS first_token_1600,
       sum(first_token_3200)::bigint AS first_token_3200,
       sum(first_token_6400)::bigint AS first_token_6400,
       sum(first_token_12800)::bigint AS first_token_12800,
       sum(first_token_25600)::bigint AS first_token_25600,
       sum(first_token_51200)::bigint AS first_token_51200,
       sum(first_token_102400)::bigint AS first_token_102400,
       sum(first_token_204800)::bigint AS first_token_204800,
       sum(first_token_409600)::bigint AS first_token_409600,
       sum(first_token_longer)::bigint AS first_token_longer, sum(cost) AS cost
FROM rollups
WHERE step_seconds = %(grain)s::integer AND starts_at >= %(since)s::timestamptz
  AND (%(model)s::text IS NULL OR model = %(model)s::text)
  AND (%(resource_id)s::text IS NULL OR resource_id = %(resource_id)s::text)
  AND (%(proxy_key_id)s::text IS NULL OR proxy_key_id = %(proxy_key_id)s::text)
  AND (%(team_id)s::text IS NULL
       OR proxy_key_id IN (SELECT id FROM proxy_keys WHERE team_id = %(team_id)s::text))
GROUP BY 1
