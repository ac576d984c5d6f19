-- One statement for a whole batch. A replayed decision changes nothing.
INSERT INTO decisions (
    id, request_id, attempt, created_at, session_id, pool_id, resource_id, reason,
    candidates, degraded
)
SELECT * FROM unnest(
    %(id)s::text[], %(request_id)s::text[], %(attempt)s::integer[],
    %(created_at)s::timestamptz[], %(session_id)s::text[], %(pool_id)s::text[],
    %(resource_id)s::text[], %(reason)s::text[], %(candidates)s::jsonb[],
    %(degraded)s::boolean[]
) AS decision (id)
ORDER BY decision.id
ON CONFLICT (id, created_at) DO NOTHING
