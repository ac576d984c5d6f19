-- One row; run for each row of a batch. The caller decided which rows to write. The
-- WHERE clause enforces the rule as well: only a row with `interrupted` is replaced.
INSERT INTO requests (
    id, created_at, completed_at, session_id, session_name, pool_id, resource_id,
    account_id, proxy_key_id, team_id, method, path, model, upstream_model, transport,
    status_code, outcome, error_code, error_message, attempts, latency_ms,
    upstream_ms, first_token_ms, overhead_ms, input_tokens, cached_tokens,
    output_tokens, reasoning_tokens, total_tokens, usage_state, request_bytes,
    response_bytes, service_tier, response_id, previous_response_id, gateway_id
)
VALUES (
    :id, :created_at, :completed_at, :session_id, :session_name, :pool_id,
    :resource_id, :account_id, :proxy_key_id, :team_id, :method, :path, :model,
    :upstream_model, :transport, :status_code, :outcome, :error_code,
    :error_message, :attempts, :latency_ms, :upstream_ms, :first_token_ms,
    :overhead_ms, :input_tokens, :cached_tokens, :output_tokens, :reasoning_tokens,
    :total_tokens, :usage_state, :request_bytes, :response_bytes, :service_tier,
    :response_id, :previous_response_id, :gateway_id
)
ON CONFLICT (id, created_at) DO UPDATE SET
    completed_at = excluded.completed_at, session_id = excluded.session_id,
    session_name = excluded.session_name, pool_id = excluded.pool_id,
    resource_id = excluded.resource_id, account_id = excluded.account_id,
    proxy_key_id = excluded.proxy_key_id, team_id = excluded.team_id, method = excluded.method,
    path = excluded.path, model = excluded.model,
    upstream_model = excluded.upstream_model, transport = excluded.transport,
    status_code = excluded.status_code, outcome = excluded.outcome,
    error_code = excluded.error_code, error_message = excluded.error_message,
    attempts = excluded.attempts, latency_ms = excluded.latency_ms,
    upstream_ms = excluded.upstream_ms, first_token_ms = excluded.first_token_ms,
    overhead_ms = excluded.overhead_ms, input_tokens = excluded.input_tokens,
    cached_tokens = excluded.cached_tokens, output_tokens = excluded.output_tokens,
    reasoning_tokens = excluded.reasoning_tokens,
    total_tokens = excluded.total_tokens, usage_state = excluded.usage_state,
    request_bytes = excluded.request_bytes,
    response_bytes = excluded.response_bytes, service_tier = excluded.service_tier,
    response_id = excluded.response_id,
    previous_response_id = excluded.previous_response_id,
    gateway_id = excluded.gateway_id
WHERE requests.outcome = 'interrupted'
