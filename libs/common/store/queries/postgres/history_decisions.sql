-- Newest first. The planner knows the values, so an absent filter costs nothing and a
-- given one uses its index. The bounds on time exclude the partitions of other days.
SELECT * FROM decisions
WHERE (%(session_id)s::text IS NULL OR session_id = %(session_id)s)
  AND (%(resource_id)s::text IS NULL OR resource_id = %(resource_id)s)
  AND (%(request_id)s::text IS NULL OR request_id = %(request_id)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND created_at >= %(since_at)s::timestamptz
  AND created_at BETWEEN %(since)s AND %(until)s
  AND (created_at, id) < (%(before_at)s::timestamptz, %(before_id)s)
ORDER BY created_at DESC, id DESC
LIMIT %(rows)s
