-- One request.
SELECT * FROM requests
WHERE id = :request_id
  AND (:session_id IS NULL OR session_id = :session_id)
  AND (:resource_id IS NULL OR resource_id = :resource_id)
  AND (:model IS NULL OR model = :model)
  AND (:proxy_key_id IS NULL OR proxy_key_id = :proxy_key_id)
  AND (:team_id IS NULL OR team_id = :team_id)
  AND (:lowest_status IS NULL OR status_code BETWEEN :lowest_status AND :highest_status)
  AND (:outcome IS NULL OR outcome = :outcome)
  AND (:error_code IS NULL OR error_code = :error_code)
  AND created_at >= :since_at
  AND (created_at, id) < (:before_at, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :rows
