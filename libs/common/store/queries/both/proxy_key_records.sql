-- What gateways need to know: all keys that are not revoked, or one key, revoked or
-- not.
SELECT
    k.id, k.name, k.prefix, k.secret_hash, k.team_id, k.pool_id, k.pools, k.expires_at, k.requests_per_minute,
    k.tokens_per_minute, k.queue_weight, k.policy, t.policy AS team_policy,
    k.budget, t.name AS team_name, t.budget AS team_budget, k.enabled, k.revoked_at
FROM proxy_keys AS k
LEFT JOIN teams AS t ON t.id = k.team_id
WHERE k.id = :id::text OR (:id::text IS NULL AND k.revoked_at IS NULL)
