-- Deletes the events of the requests that drop_requests deletes next.
DELETE FROM events WHERE rowid IN (
    SELECT events.rowid
    FROM (
        SELECT id, created_at FROM requests
        WHERE created_at < :before ORDER BY created_at, id LIMIT :most
    ) AS old
    JOIN events
      ON events.id = old.id AND events.kind = 'request' AND events.created_at = old.created_at
)
