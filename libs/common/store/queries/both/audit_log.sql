-- Newest first.
SELECT id, created_at, actor, address, peer, action, object_type, object_id, changes
FROM audit_log
WHERE (created_at, id) < (:before_at::timestamptz, :before_id)
    AND (:actor::text IS NULL OR actor = :actor::text)
    AND (:object_type::text IS NULL OR object_type = :object_type::text)
    AND (:object_id::text IS NULL OR object_id = :object_id::text)
ORDER BY created_at DESC, id DESC
LIMIT :rows
