-- A request's attempts lie within its life, but for clocks that differ.
SELECT * FROM decisions
WHERE request_id = %(id)s AND created_at BETWEEN %(since)s AND %(until)s
ORDER BY attempt, created_at, id
