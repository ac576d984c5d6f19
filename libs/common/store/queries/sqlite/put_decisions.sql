-- One row; run for each row of a batch. A replayed decision changes nothing.
INSERT INTO decisions (
    id, request_id, attempt, created_at, session_id, pool_id, resource_id, reason,
    candidates, degraded, cause
)
VALUES (
    :id, :request_id, :attempt, :created_at, :session_id, :pool_id, :resource_id,
    :reason, :candidates, :degraded, :cause
)
ON CONFLICT (id, created_at) DO NOTHING
