-- Newest first. The planner knows the values, so an absent filter costs nothing and a
-- given one uses its index. The bounds on time exclude the partitions of other days.
SELECT * FROM requests
WHERE (%(session_id)s::text IS NULL OR session_id = %(session_id)s)
  AND (%(resource_id)s::text IS NULL OR resource_id = %(resource_id)s)
  AND (%(request_id)s::text IS NULL OR id = %(request_id)s)
  AND (%(model)s::text IS NULL OR model = %(model)s)
  AND (%(proxy_key_id)s::text IS NULL OR proxy_key_id = %(proxy_key_id)s)
  AND (%(team_id)s::text IS NULL OR team_id = %(team_id)s)
  AND (%(lowest_status)s::integer IS NULL
       OR status_code BETWEEN %(lowest_status)s AND %(highest_status)s)
  AND (%(outcome)s::text IS NULL OR outcome = %(outcome)s)
  AND (%(error_code)s::text IS NULL OR error_code = %(error_code)s)
  AND (NOT %(unsuccessful)s OR outcome <> 'completed')
  AND created_at >= %(since_at)s::timestamptz
  AND created_at BETWEEN %(since)s AND %(until)s
  AND (created_at, id) < (%(before_at)s::timestamptz, %(before_id)s)
ORDER BY created_at DESC, id DESC
LIMIT %(rows)s
