-- Requests of one session, newest first.
SELECT * FROM requests
WHERE session_id = :session_id
  AND (:resource_id IS NULL OR resource_id = :resource_id)
  AND (created_at, id) < (:before_at, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :rows
