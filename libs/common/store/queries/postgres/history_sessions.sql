-- Last seen first. The planner knows the values, so an absent filter costs nothing and
-- a given one uses its index.
SELECT * FROM sessions
WHERE (%(session_id)s::text IS NULL OR id = %(session_id)s)
  AND (%(resource_id)s::text IS NULL OR last_resource_id = %(resource_id)s)
  AND (%(request_id)s::text IS NULL
       OR id IN (SELECT session_id FROM requests
              WHERE id = %(request_id)s
                AND created_at BETWEEN %(since)s AND %(until)s))
  AND last_seen_at >= %(since_at)s::timestamptz
  AND (last_seen_at, id) < (%(before_at)s::timestamptz, %(before_id)s)
ORDER BY last_seen_at DESC, id DESC
LIMIT %(rows)s
