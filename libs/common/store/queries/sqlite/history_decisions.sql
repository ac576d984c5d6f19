-- All decisions, newest first.
SELECT * FROM decisions
WHERE (:reason IS NULL OR reason = :reason)
  AND created_at >= :since_at
  AND (created_at, id) < (:before_at, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :rows
