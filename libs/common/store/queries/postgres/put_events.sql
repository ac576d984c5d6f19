-- One statement for a batch. A replayed event changes nothing.
INSERT INTO events (id, kind, created_at, data)
SELECT id, kind, created_at, data::jsonb FROM json_to_recordset(%(rows)s) AS event (
    id text, kind text, created_at timestamptz, data text
)
ORDER BY event.id
ON CONFLICT (id, kind, created_at) DO NOTHING
