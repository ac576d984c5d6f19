-- Parking the same poison twice changes nothing.
INSERT INTO dead_letters (id, entry_id, event_id, kind, reason, data, created_at)
SELECT * FROM unnest(
    %(id)s::text[], %(entry_id)s::text[], %(event_id)s::text[], %(kind)s::text[],
    %(reason)s::text[], %(data)s::text[], %(created_at)s::timestamptz[]
) AS letter (id)
ORDER BY letter.id
ON CONFLICT (id) DO NOTHING
