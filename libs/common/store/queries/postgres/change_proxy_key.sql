-- Changes only the given fields, so that concurrent changes of other fields are kept.
-- Does not change a revoked key.
UPDATE proxy_keys SET
    name = CASE WHEN given.fields ? 'name' THEN given.fields ->> 'name' ELSE name END,
    enabled = CASE WHEN given.fields ? 'enabled' THEN (given.fields ->> 'enabled')::boolean ELSE enabled END,
    team_id = CASE WHEN given.fields ? 'team_id' THEN given.fields ->> 'team_id' ELSE team_id END,
    pool_id = CASE WHEN given.fields ? 'pool_id' THEN given.fields ->> 'pool_id' ELSE pool_id END,
    pools = CASE WHEN given.fields ? 'pools' THEN given.fields -> 'pools' ELSE pools END,
    expires_at = CASE
        WHEN given.fields ? 'expires_at'
        THEN (given.fields ->> 'expires_at')::timestamptz
        ELSE expires_at
    END,
    requests_per_minute = CASE
        WHEN given.fields ? 'requests_per_minute'
        THEN (given.fields ->> 'requests_per_minute')::bigint
        ELSE requests_per_minute
    END,
    tokens_per_minute = CASE
        WHEN given.fields ? 'tokens_per_minute'
        THEN (given.fields ->> 'tokens_per_minute')::bigint
        ELSE tokens_per_minute
    END,
    queue_weight = CASE
        WHEN given.fields ? 'queue_weight'
        THEN (given.fields ->> 'queue_weight')::double precision
        ELSE queue_weight
    END,
    policy = CASE
        WHEN given.fields ? 'policy' THEN nullif(given.fields -> 'policy', 'null'::jsonb)
        ELSE policy
    END,
    budget = CASE
        WHEN given.fields ? 'budget' THEN jsonb_strip_nulls(budget || (given.fields -> 'budget'))
        ELSE budget
    END
FROM (SELECT %(fields)s::jsonb AS fields) AS given
WHERE id = %(id)s AND revoked_at IS NULL
RETURNING
    id, name, prefix, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, queue_weight, policy, budget, enabled, created_at, last_used_at, revoked_at
