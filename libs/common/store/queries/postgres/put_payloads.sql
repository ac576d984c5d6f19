-- One statement for a batch. A replayed body changes nothing. Bodies are passed as
-- bytea: text would double their size.
INSERT INTO payloads (
    request_id, direction, created_at, content_type, encoding, original_bytes,
    truncated, dropped, body
)
SELECT * FROM unnest(
    %(request_id)s::text[], %(direction)s::text[], %(created_at)s::timestamptz[],
    %(content_type)s::text[], %(encoding)s::text[], %(original_bytes)s::bigint[],
    %(truncated)s::boolean[], %(dropped)s::text[], %(body)b::bytea[]
) AS payload (request_id, direction)
ORDER BY payload.request_id, payload.direction
ON CONFLICT (request_id, direction, created_at) DO NOTHING
