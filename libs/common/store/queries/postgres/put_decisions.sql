-- One statement for a batch. A replayed decision changes nothing.
INSERT INTO decisions (
    id, request_id, attempt, created_at, session_id, pool_id, resource_id, reason,
    candidates, degraded, cause, waited_ms
)
SELECT
    id, request_id, attempt, created_at, session_id, pool_id, resource_id, reason,
    candidates::jsonb, degraded, cause, waited_ms
FROM json_to_recordset(%(rows)s) AS decision (
    id text, request_id text, attempt integer, created_at timestamptz,
    session_id text, pool_id text, resource_id text, reason text, candidates text,
    degraded boolean, cause text, waited_ms bigint
)
ORDER BY decision.id
ON CONFLICT (id, created_at) DO NOTHING
