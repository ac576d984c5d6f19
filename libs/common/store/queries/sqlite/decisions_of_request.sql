SELECT * FROM decisions WHERE request_id = :id ORDER BY attempt, created_at, id
