-- Oldest first. Those before `since` are given up.
SELECT id, body, attempts
FROM alerts
WHERE delivered_at IS NULL AND due_at <= :now::timestamptz AND created_at >= :since::timestamptz
ORDER BY created_at, id
LIMIT :rows
