-- The attempts of a request, within the time of the request plus a margin for clock
-- differences.
SELECT * FROM decisions
WHERE request_id = %(id)s AND created_at BETWEEN %(since)s AND %(until)s
ORDER BY attempt, created_at, id
