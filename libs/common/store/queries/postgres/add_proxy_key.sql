-- Does not return the hash.
INSERT INTO proxy_keys (
    id, name, prefix, secret_hash, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, created_at
)
VALUES (
    %(id)s, %(name)s, %(prefix)s, %(secret_hash)s, %(team_id)s, %(pool_id)s, %(pools)s::jsonb,
    %(expires_at)s::timestamptz, %(requests_per_minute)s, %(tokens_per_minute)s, %(created_at)s::timestamptz
)
RETURNING
    id, name, prefix, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, enabled, created_at, last_used_at, revoked_at
