-- A replayed event changes nothing. Of requests only those come here that are
-- new or take the place of an interrupted one.
INSERT INTO events (id, kind, created_at, data)
SELECT * FROM unnest(
    %(id)s::text[], %(kind)s::text[], %(created_at)s::timestamptz[],
    %(data)s::jsonb[]
) AS event (id)
ORDER BY event.id
ON CONFLICT (id, kind, created_at) DO UPDATE SET data = excluded.data
WHERE events.kind = 'request'
