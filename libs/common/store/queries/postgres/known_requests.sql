-- Stored rows of the requests in a batch. The bounds on created_at exclude the
-- partitions of other days.
SELECT id, created_at, session_id, outcome, total_tokens, resource_id, proxy_key_id
FROM requests
WHERE id = ANY(%(ids)s::text[]) AND created_at BETWEEN %(oldest)s AND %(newest)s
