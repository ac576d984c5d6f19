-- Deletes the event of a request that a final outcome replaces.
DELETE FROM events WHERE id = ? AND created_at = ? AND kind = 'request'
