UPDATE alerts SET due_at = :due::timestamptz, attempts = attempts + 1
WHERE id = :id
RETURNING id
