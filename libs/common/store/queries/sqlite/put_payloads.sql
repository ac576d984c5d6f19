-- One row; run for each row of a batch. A replayed body changes nothing.
INSERT INTO payloads (
    request_id, direction, created_at, content_type, encoding, original_bytes,
    truncated, dropped, body
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (request_id, direction, created_at) DO NOTHING
