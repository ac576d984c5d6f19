SELECT * FROM requests
WHERE id = %(id)s AND created_at BETWEEN %(since)s AND %(until)s
ORDER BY created_at
LIMIT 1
