-- Returns no row if the alias exists or the provider does not.
INSERT INTO models (
    alias, provider_id, upstream_id, targets, enabled, created_at, updated_at
)
SELECT
    %(alias)s, providers.id, %(upstream_id)s, %(targets)s::jsonb, %(enabled)s,
    %(at)s::timestamptz, %(at)s::timestamptz
FROM providers
WHERE providers.id = %(provider_id)s
ON CONFLICT (alias) DO NOTHING
RETURNING
    alias, provider_id, upstream_id, targets, enabled, created_at, updated_at
