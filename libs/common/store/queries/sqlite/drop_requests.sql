-- Deletes a bounded number of older rows, oldest first.
DELETE FROM requests WHERE rowid IN (
    SELECT rowid FROM requests
    WHERE created_at < :before ORDER BY created_at, id LIMIT :most
)
