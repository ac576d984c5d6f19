INSERT INTO decisions (
    id, request_id, attempt, created_at, session_id, pool_id, resource_id, reason,
    candidates, degraded, cause, waited_ms
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id, created_at) DO NOTHING
