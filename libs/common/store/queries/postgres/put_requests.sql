-- One statement for a batch. The caller decided under the writers' lock which rows to
-- write, and deleted those that are replaced.
INSERT INTO requests (
    id, created_at, completed_at, session_id, session_name, pool_id, resource_id,
    account_id, proxy_key_id, team_id, method, path, model, upstream_model, transport,
    status_code, outcome, error_code, error_message, attempts, latency_ms,
    upstream_ms, first_token_ms, overhead_ms, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, total_tokens, usage_state, request_bytes,
    response_bytes, service_tier, response_id, previous_response_id, gateway_id, cost_nanos
)
SELECT * FROM json_to_recordset(%(rows)s) AS request (
    id text, created_at timestamptz, completed_at timestamptz, session_id text,
    session_name text, pool_id text, resource_id text, account_id text,
    proxy_key_id text, team_id text, method text, path text, model text, upstream_model text,
    transport text, status_code integer, outcome text, error_code text,
    error_message text, attempts integer, latency_ms float8, upstream_ms float8,
    first_token_ms float8, overhead_ms float8, input_tokens bigint,
    cached_tokens bigint, output_tokens bigint, reasoning_tokens bigint,
    total_tokens bigint, usage_state text, request_bytes bigint,
    response_bytes bigint, service_tier text, response_id text,
    previous_response_id text, gateway_id text, cost_nanos bigint
)
ORDER BY request.id
ON CONFLICT (id, created_at) DO NOTHING
