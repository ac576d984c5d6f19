-- A replayed event changes nothing.
INSERT INTO events (id, kind, created_at, data) VALUES (?, ?, ?, ?)
ON CONFLICT (id, kind, created_at) DO NOTHING
