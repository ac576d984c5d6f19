-- A bounded part of what is older, the oldest first.
DELETE FROM requests WHERE rowid IN (
    SELECT rowid FROM requests WHERE created_at < :before ORDER BY created_at LIMIT :most
)
