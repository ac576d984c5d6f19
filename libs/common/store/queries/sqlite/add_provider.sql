-- Returns no row if the id exists.
INSERT INTO providers (
    id, name, provider_type, base_url, wire_api, auth_type, api_key_sealed,
    credential_ref, pool_id, account_id, weight, enabled, created_at, updated_at
)
VALUES (
    :id, :name, :provider_type, :base_url, :wire_api, :auth_type,
    :api_key_sealed, :credential_ref, :pool_id, :account_id, :weight,
    :enabled, :at, :at
)
ON CONFLICT (id) DO NOTHING
RETURNING
    id, name, provider_type, base_url, wire_api, auth_type, api_key_sealed,
    credential_ref, pool_id, account_id, weight, enabled, created_at, updated_at
