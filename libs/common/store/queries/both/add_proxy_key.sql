-- Does not return the hash.
INSERT INTO proxy_keys (
    id, name, prefix, secret_hash, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, queue_weight, policy, budget, created_at
)
VALUES (
    :id, :name, :prefix, :secret_hash, :team_id, :pool_id, :pools::jsonb,
    :expires_at::timestamptz, :requests_per_minute, :tokens_per_minute, :queue_weight, :policy::jsonb,
    :budget::jsonb, :created_at::timestamptz
)
RETURNING
    id, name, prefix, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, queue_weight, policy, budget, enabled, created_at, last_used_at, revoked_at
