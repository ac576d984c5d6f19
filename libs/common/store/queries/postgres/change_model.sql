-- Changes only the given fields, so that concurrent changes of other fields are kept.
UPDATE models SET
    provider_id = CASE WHEN given.fields ? 'provider_id' THEN given.fields ->> 'provider_id' ELSE provider_id END,
    upstream_id = CASE WHEN given.fields ? 'upstream_id' THEN given.fields ->> 'upstream_id' ELSE upstream_id END,
    targets = CASE WHEN given.fields ? 'targets' THEN NULLIF(given.fields -> 'targets', 'null') ELSE targets END,
    enabled = CASE WHEN given.fields ? 'enabled' THEN (given.fields ->> 'enabled')::boolean ELSE enabled END,
    updated_at = %(at)s::timestamptz
FROM (SELECT %(fields)s::jsonb AS fields) AS given
WHERE alias = %(id)s
RETURNING
    alias, provider_id, upstream_id, targets, enabled, created_at, updated_at
