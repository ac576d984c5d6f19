INSERT INTO minted_ids (id, created_at, request_id, resource_id, account_id, tenant, repeated)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id, created_at) DO NOTHING
