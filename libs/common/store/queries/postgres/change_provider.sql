-- Changes only the given fields, so that concurrent changes of other fields are kept.
UPDATE providers SET
    name = CASE WHEN given.fields ? 'name' THEN given.fields ->> 'name' ELSE name END,
    provider_type = CASE WHEN given.fields ? 'provider_type' THEN given.fields ->> 'provider_type' ELSE provider_type END,
    base_url = CASE WHEN given.fields ? 'base_url' THEN given.fields ->> 'base_url' ELSE base_url END,
    wire_api = CASE WHEN given.fields ? 'wire_api' THEN given.fields ->> 'wire_api' ELSE wire_api END,
    auth_type = CASE WHEN given.fields ? 'auth_type' THEN given.fields ->> 'auth_type' ELSE auth_type END,
    api_key_sealed = CASE WHEN given.fields ? 'api_key_sealed' THEN given.fields ->> 'api_key_sealed' ELSE api_key_sealed END,
    credential_ref = CASE WHEN given.fields ? 'credential_ref' THEN given.fields ->> 'credential_ref' ELSE credential_ref END,
    pool_id = CASE WHEN given.fields ? 'pool_id' THEN given.fields ->> 'pool_id' ELSE pool_id END,
    account_id = CASE WHEN given.fields ? 'account_id' THEN given.fields ->> 'account_id' ELSE account_id END,
    weight = CASE WHEN given.fields ? 'weight' THEN (given.fields ->> 'weight')::double precision ELSE weight END,
    enabled = CASE WHEN given.fields ? 'enabled' THEN (given.fields ->> 'enabled')::boolean ELSE enabled END,
    updated_at = %(at)s::timestamptz
FROM (SELECT %(fields)s::jsonb AS fields) AS given
WHERE id = %(id)s
RETURNING
    id, name, provider_type, base_url, wire_api, auth_type, api_key_sealed,
    credential_ref, pool_id, account_id, weight, enabled, created_at, updated_at
