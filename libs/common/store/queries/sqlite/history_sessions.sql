-- All sessions, last seen first.
SELECT * FROM sessions
WHERE last_seen_at >= :since_at
  AND (last_seen_at, id) < (:before_at, :before_id)
ORDER BY last_seen_at DESC, id DESC
LIMIT :rows
