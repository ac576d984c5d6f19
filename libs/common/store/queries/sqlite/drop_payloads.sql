-- Deletes a bounded number of older rows, oldest first.
DELETE FROM payloads WHERE rowid IN (
    SELECT rowid FROM payloads WHERE created_at < :before ORDER BY created_at LIMIT :most
)
