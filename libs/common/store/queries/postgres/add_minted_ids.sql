COPY minted_ids (id, created_at, request_id, resource_id, account_id, tenant, repeated)
FROM STDIN (FORMAT binary)
