COPY events (id, kind, created_at, data) FROM STDIN (FORMAT binary)
