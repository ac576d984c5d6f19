-- Returns no row if the id exists.
INSERT INTO providers (
    id, name, provider_type, base_url, wire_api, auth_type, api_key_sealed,
    credential_ref, pool_id, account_id, weight, enabled, created_at, updated_at
)
VALUES (
    %(id)s, %(name)s, %(provider_type)s, %(base_url)s, %(wire_api)s, %(auth_type)s,
    %(api_key_sealed)s, %(credential_ref)s, %(pool_id)s, %(account_id)s, %(weight)s,
    %(enabled)s, %(at)s::timestamptz, %(at)s::timestamptz
)
ON CONFLICT (id) DO NOTHING
RETURNING
    id, name, provider_type, base_url, wire_api, auth_type, api_key_sealed,
    credential_ref, pool_id, account_id, weight, enabled, created_at, updated_at
