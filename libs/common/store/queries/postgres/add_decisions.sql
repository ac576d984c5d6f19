COPY decisions (
    id, request_id, attempt, created_at, session_id, pool_id, resource_id, reason,
    candidates, degraded, cause, waited_ms
) FROM STDIN (FORMAT binary)
