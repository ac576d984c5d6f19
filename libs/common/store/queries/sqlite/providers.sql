-- All providers, or the one with an id, in the order of their resources.
SELECT
    id, name, provider_type, base_url, wire_api, auth_type, api_key_sealed,
    credential_ref, pool_id, account_id, weight, enabled, created_at, updated_at
FROM providers
WHERE :id IS NULL OR id = :id
ORDER BY created_at, id
