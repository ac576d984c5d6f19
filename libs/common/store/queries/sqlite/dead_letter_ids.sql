-- Oldest first, the order in which they are sent again.
SELECT id FROM dead_letters ORDER BY created_at, id
