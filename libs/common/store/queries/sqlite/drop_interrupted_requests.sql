-- Deletes a request that a final outcome replaces.
DELETE FROM requests WHERE id = ? AND created_at = ? AND outcome = 'interrupted'
