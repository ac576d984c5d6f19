-- Oldest first, which is the order of replays.
SELECT id FROM dead_letters ORDER BY created_at, id
