-- Newest first, including revoked keys, to which the ledger refers.
SELECT
    id, name, prefix, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, queue_weight, policy, budget, enabled, created_at, last_used_at, revoked_at
FROM proxy_keys
WHERE (created_at, id) < (:before_at::timestamptz, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :rows
