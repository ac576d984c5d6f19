-- A replayed dead letter changes nothing.
INSERT INTO dead_letters (
    id, entry_id, event_id, kind, reason, data, created_at, gateway_id
)
SELECT * FROM json_to_recordset(%(rows)s) AS letter (
    id text, entry_id text, event_id text, kind text, reason text, data text,
    created_at timestamptz, gateway_id text
)
ORDER BY letter.id
ON CONFLICT (id) DO NOTHING
