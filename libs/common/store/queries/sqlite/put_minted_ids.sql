-- The ids of one request, a JSON array; run for each of a batch. A replayed id
-- changes nothing. (WHERE true: else ON would be read as the join's.)
INSERT INTO minted_ids (id, created_at, request_id, resource_id, account_id, tenant, repeated)
SELECT value, :created_at, :request_id, :resource_id, :account_id, :tenant, :repeated
FROM json_each(:ids)
WHERE true
ON CONFLICT (id, created_at) DO NOTHING
