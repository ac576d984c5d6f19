-- One row; run for each session of a batch. Adds its new requests. The newest request
-- determines the name and the resource.
INSERT INTO sessions (
    id, name, first_seen_at, last_seen_at, requests, total_tokens, last_resource_id
)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    name = CASE
        WHEN excluded.last_seen_at >= sessions.last_seen_at
        THEN coalesce(excluded.name, sessions.name)
        ELSE coalesce(sessions.name, excluded.name)
    END,
    last_resource_id = CASE
        WHEN excluded.last_seen_at >= sessions.last_seen_at
        THEN coalesce(excluded.last_resource_id, sessions.last_resource_id)
        ELSE coalesce(sessions.last_resource_id, excluded.last_resource_id)
    END,
    first_seen_at = min(sessions.first_seen_at, excluded.first_seen_at),
    last_seen_at = max(sessions.last_seen_at, excluded.last_seen_at),
    requests = sessions.requests + excluded.requests,
    total_tokens = sessions.total_tokens + excluded.total_tokens
