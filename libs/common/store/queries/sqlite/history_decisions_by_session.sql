-- Decisions of one session, newest first.
SELECT * FROM decisions
WHERE session_id = :session_id
  AND (:resource_id IS NULL OR resource_id = :resource_id)
  AND (:reason IS NULL OR reason = :reason)
  AND created_at >= :since_at
  AND (created_at, id) < (:before_at, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :rows
