-- One statement for a batch. A replayed id changes nothing.
INSERT INTO minted_ids (
    id, created_at, request_id, resource_id, account_id, tenant, repeated
)
SELECT * FROM json_to_recordset(%(rows)s) AS minted (
    id text, created_at timestamptz, request_id text, resource_id text,
    account_id text, tenant text, repeated boolean
)
ORDER BY minted.id
ON CONFLICT (id, created_at) DO NOTHING
