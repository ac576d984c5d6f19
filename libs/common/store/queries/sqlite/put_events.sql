-- One row; run for each of a batch. A replayed event changes nothing. Of
-- requests only those come here that are new or take an interrupted one's place.
INSERT INTO events (id, kind, created_at, data)
VALUES (:id, :kind, :created_at, :data)
ON CONFLICT (id, kind, created_at) DO UPDATE SET data = excluded.data
WHERE events.kind = 'request'
