-- Nothing of the batch is stored yet; a primary key that says otherwise undoes all.
INSERT INTO events (id, kind, created_at, data) VALUES (?, ?, ?, ?)
