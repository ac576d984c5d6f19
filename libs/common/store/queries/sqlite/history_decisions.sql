-- All decisions, newest first.
SELECT * FROM decisions
WHERE (created_at, id) < (:before_at, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :rows
