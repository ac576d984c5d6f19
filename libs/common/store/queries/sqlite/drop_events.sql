-- Deletes a bounded number of older rows, with the index events_by_kind.
DELETE FROM events WHERE rowid IN (
    SELECT rowid FROM events
    WHERE kind IN (SELECT value FROM json_each(:kinds)) AND created_at < :before
    LIMIT :most
)
