-- The ids of one request, a JSON array; run for each request of a batch. A replayed id
-- changes nothing. (WHERE true: without it, ON would belong to the join.)
INSERT INTO minted_ids (id, created_at, request_id, resource_id, account_id, tenant, repeated)
SELECT value, :created_at, :request_id, :resource_id, :account_id, :tenant, :repeated
FROM json_each(:ids)
WHERE true
ON CONFLICT (id, created_at) DO NOTHING
