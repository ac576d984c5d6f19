-- Where the newest completed request of a session ran, from requests_by_session. A
-- resource without an account is an account of its own. Session ids are unique per
-- tenant only.
SELECT resource_id, coalesce(account_id, resource_id) AS account_id
FROM requests
WHERE session_id = %(session_id)s
  AND created_at BETWEEN %(since)s AND %(until)s
  AND coalesce('team:' || team_id, 'key:' || proxy_key_id, '') = %(tenant)s
  AND outcome = 'completed' AND resource_id IS NOT NULL
ORDER BY created_at DESC, id DESC
LIMIT 1
