-- The tenant of a request.
SELECT coalesce('team:' || team_id, 'key:' || proxy_key_id, '') AS tenant
FROM requests
WHERE id = %(request_id)s AND created_at = %(created_at)s::timestamptz
