-- Deletes the events of the decisions that drop_decisions deletes next.
DELETE FROM events WHERE rowid IN (
    SELECT events.rowid
    FROM (
        SELECT id, created_at FROM decisions
        WHERE created_at < :before ORDER BY created_at, id LIMIT :most
    ) AS old
    JOIN events
      ON events.id = old.id AND events.kind = 'decision' AND events.created_at = old.created_at
)
