-- Changes only the given fields, so that concurrent changes of other fields are kept.
-- Does not change a revoked key. json_type is NULL for an absent member, and 'null' for
-- null.
UPDATE proxy_keys SET
    name = CASE
        WHEN json_type(:fields, '$.name') IS NOT NULL
        THEN json_extract(:fields, '$.name')
        ELSE name
    END,
    enabled = CASE
        WHEN json_type(:fields, '$.enabled') IS NOT NULL
        THEN json_extract(:fields, '$.enabled')
        ELSE enabled
    END,
    team_id = CASE
        WHEN json_type(:fields, '$.team_id') IS NOT NULL
        THEN json_extract(:fields, '$.team_id')
        ELSE team_id
    END,
    pool_id = CASE
        WHEN json_type(:fields, '$.pool_id') IS NOT NULL
        THEN json_extract(:fields, '$.pool_id')
        ELSE pool_id
    END,
    pools = CASE
        WHEN json_type(:fields, '$.pools') IS NOT NULL
        THEN json_extract(:fields, '$.pools')
        ELSE pools
    END,
    expires_at = CASE
        WHEN json_type(:fields, '$.expires_at') IS NOT NULL
        THEN json_extract(:fields, '$.expires_at')
        ELSE expires_at
    END,
    requests_per_minute = CASE
        WHEN json_type(:fields, '$.requests_per_minute') IS NOT NULL
        THEN json_extract(:fields, '$.requests_per_minute')
        ELSE requests_per_minute
    END,
    tokens_per_minute = CASE
        WHEN json_type(:fields, '$.tokens_per_minute') IS NOT NULL
        THEN json_extract(:fields, '$.tokens_per_minute')
        ELSE tokens_per_minute
    END,
    queue_weight = CASE
        WHEN json_type(:fields, '$.queue_weight') IS NOT NULL
        THEN json_extract(:fields, '$.queue_weight')
        ELSE queue_weight
    END,
    policy = CASE
        WHEN json_type(:fields, '$.policy') IS NOT NULL
        THEN json_extract(:fields, '$.policy')
        ELSE policy
    END,
    budget = CASE
        WHEN json_type(:fields, '$.budget') IS NOT NULL
        THEN json_patch(budget, json_extract(:fields, '$.budget'))
        ELSE budget
    END
WHERE id = :id AND revoked_at IS NULL
RETURNING
    id, name, prefix, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, queue_weight, policy, budget, enabled, created_at, last_used_at, revoked_at
