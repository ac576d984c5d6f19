SELECT * FROM requests WHERE id = %(id)s ORDER BY created_at LIMIT 1
