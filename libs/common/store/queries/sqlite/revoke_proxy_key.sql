-- Permanent; the first time is kept. The row stays, because the ledger refers to it.
UPDATE proxy_keys SET
    enabled = 0,
    revoked_at = coalesce(revoked_at, :revoked_at)
WHERE id = :id
RETURNING
    id, name, prefix, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, queue_weight, policy, budget, enabled, created_at, last_used_at, revoked_at
