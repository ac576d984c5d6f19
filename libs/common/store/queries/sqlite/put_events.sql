-- One row; run for each row of a batch. A replayed event changes nothing. Events of
-- requests are passed only if they are new or replace an interrupted one.
INSERT INTO events (id, kind, created_at, data)
VALUES (:id, :kind, :created_at, :data)
ON CONFLICT (id, kind, created_at) DO UPDATE SET data = excluded.data
WHERE events.kind = 'request'
