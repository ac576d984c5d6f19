-- Requests of one resource, newest first.
SELECT * FROM requests
WHERE resource_id = :resource_id
  AND (created_at, id) < (:before_at, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :rows
