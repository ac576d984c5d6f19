UPDATE alerts SET delivered_at = :at::timestamptz, attempts = attempts + 1
WHERE id = :id
RETURNING id
