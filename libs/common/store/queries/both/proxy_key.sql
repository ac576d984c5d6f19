SELECT
    id, name, prefix, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, queue_weight, policy, budget, enabled, created_at, last_used_at, revoked_at
FROM proxy_keys
WHERE id = :id
