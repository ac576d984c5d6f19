-- Does not return the hash.
INSERT INTO proxy_keys (
    id, name, prefix, secret_hash, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, created_at
)
VALUES (
    :id, :name, :prefix, :secret_hash, :team_id, :pool_id, :pools,
    :expires_at, :requests_per_minute, :tokens_per_minute, :created_at
)
RETURNING
    id, name, prefix, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, enabled, created_at, last_used_at, revoked_at
