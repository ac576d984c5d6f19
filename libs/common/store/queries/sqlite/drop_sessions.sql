-- Deletes a bounded number of sessions last seen before a time, oldest first.
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions WHERE last_seen_at < :before ORDER BY last_seen_at LIMIT :most
)
