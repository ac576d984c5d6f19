-- Stored rows of the requests in a batch; `ids` is a JSON array.
SELECT id, created_at, session_id, outcome, total_tokens, resource_id, proxy_key_id
FROM requests
WHERE id IN (SELECT value FROM json_each(:ids))
