-- Deletes a bounded number of older rows, oldest first.
DELETE FROM decisions WHERE rowid IN (
    SELECT rowid FROM decisions
    WHERE created_at < :before ORDER BY created_at, id LIMIT :most
)
