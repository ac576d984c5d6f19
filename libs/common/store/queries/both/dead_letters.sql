-- Newest first, without data.
SELECT id, entry_id, event_id, kind, reason, created_at FROM dead_letters
ORDER BY created_at DESC, id DESC
LIMIT :rows
