-- Changes only the given fields, so that concurrent changes of other fields are kept.
-- json_type is NULL for an absent member, and 'null' for null.
UPDATE models SET
    provider_id = CASE
        WHEN json_type(:fields, '$.provider_id') IS NOT NULL
        THEN json_extract(:fields, '$.provider_id')
        ELSE provider_id
    END,
    upstream_id = CASE
        WHEN json_type(:fields, '$.upstream_id') IS NOT NULL
        THEN json_extract(:fields, '$.upstream_id')
        ELSE upstream_id
    END,
    targets = CASE
        WHEN json_type(:fields, '$.targets') IS NOT NULL
        THEN json_extract(:fields, '$.targets')
        ELSE targets
    END,
    enabled = CASE
        WHEN json_type(:fields, '$.enabled') IS NOT NULL
        THEN json_extract(:fields, '$.enabled')
        ELSE enabled
    END,
    updated_at = :at
WHERE alias = :id
RETURNING
    alias, provider_id, upstream_id, targets, enabled, created_at, updated_at
