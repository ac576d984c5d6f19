-- All models, or the one with an alias.
SELECT alias, provider_id, upstream_id, targets, enabled, created_at, updated_at
FROM models
WHERE %(id)s::text IS NULL OR alias = %(id)s
ORDER BY alias
