-- The session of one request.
SELECT * FROM sessions
WHERE id IN (SELECT session_id FROM requests WHERE id = :request_id)
  AND (:session_id IS NULL OR id = :session_id)
  AND (:resource_id IS NULL OR last_resource_id = :resource_id)
  AND last_seen_at >= :since_at
  AND (last_seen_at, id) < (:before_at, :before_id)
ORDER BY last_seen_at DESC, id DESC
LIMIT :rows
