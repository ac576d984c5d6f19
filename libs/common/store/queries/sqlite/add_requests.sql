INSERT INTO requests (
    id, created_at, completed_at, session_id, session_name, pool_id, resource_id,
    account_id, proxy_key_id, team_id, method, path, model, upstream_model, transport,
    status_code, outcome, error_code, error_message, attempts, latency_ms,
    upstream_ms, first_token_ms, overhead_ms, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, total_tokens, usage_state, request_bytes,
    response_bytes, service_tier, response_id, previous_response_id, gateway_id, cost_nanos
)
VALUES (
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
)
ON CONFLICT (id, created_at) DO NOTHING
