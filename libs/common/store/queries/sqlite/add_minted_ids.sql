INSERT INTO minted_ids (id, created_at, request_id, resource_id, account_id, tenant, repeated)
VALUES (?, ?, ?, ?, ?, ?, ?)
