-- One statement for a batch, with a row of input for each request. A replayed id
-- changes nothing.
INSERT INTO minted_ids (
    id, created_at, request_id, resource_id, account_id, tenant, repeated
)
SELECT minted.id, created_at, request_id, resource_id, account_id, tenant, repeated
FROM json_to_recordset(%(rows)s) AS request (
    created_at timestamptz, request_id text, resource_id text, account_id text,
    tenant text, repeated boolean, ids json
), json_array_elements_text(ids) AS minted (id)
ORDER BY minted.id
ON CONFLICT (id, created_at) DO NOTHING
