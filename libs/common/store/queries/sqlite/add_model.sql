-- Returns no row if the alias exists or the provider does not.
INSERT INTO models (
    alias, provider_id, upstream_id, targets, enabled, created_at, updated_at
)
SELECT :alias, providers.id, :upstream_id, :targets, :enabled, :at, :at
FROM providers
WHERE providers.id = :provider_id
ON CONFLICT (alias) DO NOTHING
RETURNING
    alias, provider_id, upstream_id, targets, enabled, created_at, updated_at
