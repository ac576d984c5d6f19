-- The newest changes of health since a time, newest first.
SELECT created_at, data AS event FROM events
WHERE kind = 'health' AND created_at >= :since::timestamptz
ORDER BY created_at DESC
LIMIT 1000
