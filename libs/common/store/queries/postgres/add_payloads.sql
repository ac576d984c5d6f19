COPY payloads (
    request_id, direction, created_at, content_type, encoding, original_bytes,
    truncated, dropped, body
) FROM STDIN (FORMAT binary)
