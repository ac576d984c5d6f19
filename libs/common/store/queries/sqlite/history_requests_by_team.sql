-- Requests of one team, newest first.
SELECT * FROM requests
WHERE team_id = :team_id
  AND (:resource_id IS NULL OR resource_id = :resource_id)
  AND (:model IS NULL OR model = :model)
  AND (:lowest_status IS NULL OR status_code BETWEEN :lowest_status AND :highest_status)
  AND (:outcome IS NULL OR outcome = :outcome)
  AND (:error_code IS NULL OR error_code = :error_code)
  AND created_at >= :since_at
  AND (created_at, id) < (:before_at, :before_id)
ORDER BY created_at DESC, id DESC
LIMIT :rows
