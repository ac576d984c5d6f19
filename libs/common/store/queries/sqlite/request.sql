SELECT * FROM requests WHERE id = :id ORDER BY created_at LIMIT 1
