-- For batches of which nothing is stored; a primary key violation rolls back the batch.
INSERT INTO events (id, kind, created_at, data) VALUES (?, ?, ?, ?)
