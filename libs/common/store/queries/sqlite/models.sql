-- All models, or the one with an alias.
SELECT alias, provider_id, upstream_id, targets, enabled, created_at, updated_at
FROM models
WHERE :id IS NULL OR alias = :id
ORDER BY alias
