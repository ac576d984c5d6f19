-- Changes only the given fields, so that concurrent changes of other fields are kept.
-- json_type is NULL for an absent member, and 'null' for null.
UPDATE providers SET
    name = CASE
        WHEN json_type(:fields, '$.name') IS NOT NULL
        THEN json_extract(:fields, '$.name')
        ELSE name
    END,
    provider_type = CASE
        WHEN json_type(:fields, '$.provider_type') IS NOT NULL
        THEN json_extract(:fields, '$.provider_type')
        ELSE provider_type
    END,
    base_url = CASE
        WHEN json_type(:fields, '$.base_url') IS NOT NULL
        THEN json_extract(:fields, '$.base_url')
        ELSE base_url
    END,
    wire_api = CASE
        WHEN json_type(:fields, '$.wire_api') IS NOT NULL
        THEN json_extract(:fields, '$.wire_api')
        ELSE wire_api
    END,
    auth_type = CASE
        WHEN json_type(:fields, '$.auth_type') IS NOT NULL
        THEN json_extract(:fields, '$.auth_type')
        ELSE auth_type
    END,
    api_key_sealed = CASE
        WHEN json_type(:fields, '$.api_key_sealed') IS NOT NULL
        THEN json_extract(:fields, '$.api_key_sealed')
        ELSE api_key_sealed
    END,
    credential_ref = CASE
        WHEN json_type(:fields, '$.credential_ref') IS NOT NULL
        THEN json_extract(:fields, '$.credential_ref')
        ELSE credential_ref
    END,
    pool_id = CASE
        WHEN json_type(:fields, '$.pool_id') IS NOT NULL
        THEN json_extract(:fields, '$.pool_id')
        ELSE pool_id
    END,
    account_id = CASE
        WHEN json_type(:fields, '$.account_id') IS NOT NULL
        THEN json_extract(:fields, '$.account_id')
        ELSE account_id
    END,
    weight = CASE
        WHEN json_type(:fields, '$.weight') IS NOT NULL
        THEN json_extract(:fields, '$.weight')
        ELSE weight
    END,
    enabled = CASE
        WHEN json_type(:fields, '$.enabled') IS NOT NULL
        THEN json_extract(:fields, '$.enabled')
        ELSE enabled
    END,
    updated_at = :at
WHERE id = :id
RETURNING
    id, name, provider_type, base_url, wire_api, auth_type, api_key_sealed,
    credential_ref, pool_id, account_id, weight, enabled, created_at, updated_at
