SELECT * FROM decisions WHERE request_id = %(id)s ORDER BY attempt, created_at, id
