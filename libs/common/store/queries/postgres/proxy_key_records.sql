-- What gateways need to know: all keys that are not revoked, or one key, revoked or
-- not.
SELECT
    id, secret_hash, team_id, pool_id, pools, expires_at, requests_per_minute,
    tokens_per_minute, enabled, revoked_at
FROM proxy_keys
WHERE id = %(id)s::text OR (%(id)s::text IS NULL AND revoked_at IS NULL)
