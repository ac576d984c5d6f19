-- What a batch of requests adds to sessions, gateways, proxy keys, sums and totals, in one
-- call whose statements a connection plans once. The JSON parameters are arrays of rows, or
-- null; values that are 0 or empty may be left out.
CREATE FUNCTION add_batch_v1(
    new_sessions json, new_reports json, used_keys json, new_sums json, fresh bigint
) RETURNS void
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF new_sessions IS NOT NULL THEN
        -- The newest request determines the name and the resource.
        INSERT INTO sessions (
            id, name, first_seen_at, last_seen_at, requests, total_tokens, last_resource_id
        )
        SELECT id, name, first_seen_at, last_seen_at, coalesce(requests, 0),
               coalesce(total_tokens, 0), last_resource_id
        FROM json_to_recordset(new_sessions) AS session (
            id text, name text, first_seen_at timestamptz, last_seen_at timestamptz,
            requests bigint, total_tokens bigint, last_resource_id text
        )
        ORDER BY 1
        ON CONFLICT (id) DO UPDATE SET
            name = CASE
                WHEN excluded.last_seen_at >= sessions.last_seen_at
                THEN coalesce(excluded.name, sessions.name)
                ELSE coalesce(sessions.name, excluded.name)
            END,
            last_resource_id = CASE
                WHEN excluded.last_seen_at >= sessions.last_seen_at
                THEN coalesce(excluded.last_resource_id, sessions.last_resource_id)
                ELSE coalesce(sessions.last_resource_id, excluded.last_resource_id)
            END,
            first_seen_at = least(sessions.first_seen_at, excluded.first_seen_at),
            last_seen_at = greatest(sessions.last_seen_at, excluded.last_seen_at),
            requests = sessions.requests + excluded.requests,
            total_tokens = sessions.total_tokens + excluded.total_tokens;
    END IF;
    IF new_reports IS NOT NULL THEN
        -- Reports may arrive in any order: counters keep their maximum, other columns
        -- the newest value.
        INSERT INTO gateways AS known (
            id, started_at, last_seen_at, accepted, ended, held, state, stored
        )
        SELECT coalesce(id, ''), started_at, last_seen_at, coalesce(accepted, 0),
               coalesce(ended, 0), coalesce(held, 0), state, coalesce(stored, 0)
        FROM json_to_recordset(new_reports) AS told (
            id text, started_at timestamptz, last_seen_at timestamptz, accepted bigint,
            ended bigint, held bigint, state text, stored bigint
        )
        ORDER BY 1
        ON CONFLICT (id) DO UPDATE SET
            started_at = coalesce(known.started_at, excluded.started_at),
            last_seen_at = greatest(known.last_seen_at, excluded.last_seen_at),
            accepted = greatest(known.accepted, excluded.accepted),
            ended = greatest(known.ended, excluded.ended),
            held = CASE
                WHEN excluded.last_seen_at >= coalesce(known.last_seen_at, '-infinity')
                THEN excluded.held ELSE known.held
            END,
            state = CASE
                WHEN excluded.state = 'closed' THEN 'closed' ELSE known.state
            END,
            stored = known.stored + excluded.stored;
    END IF;
    IF used_keys IS NOT NULL THEN
        UPDATE proxy_keys SET
            last_used_at = greatest(proxy_keys.last_used_at, used.last_used_at)
        FROM json_to_recordset(used_keys) AS used (id text, last_used_at timestamptz)
        WHERE proxy_keys.id = used.id;
    END IF;
    IF new_sums IS NOT NULL THEN
        INSERT INTO rollups (
            step_seconds, starts_at, model, resource_id, proxy_key_id, requests,
            failed, cancelled, interrupted, attempts, failovers, input_tokens,
            cached_tokens, output_tokens, reasoning_tokens, latency_ms,
            first_token_ms, latency_25, latency_50, latency_100, latency_200,
            latency_400, latency_800, latency_1600, latency_3200, latency_6400,
            latency_12800, latency_25600, latency_51200, latency_102400,
            latency_204800, latency_409600, latency_longer, first_token_25,
            first_token_50, first_token_100, first_token_200, first_token_400,
            first_token_800, first_token_1600, first_token_3200, first_token_6400,
            first_token_12800, first_token_25600, first_token_51200,
            first_token_102400, first_token_204800, first_token_409600,
            first_token_longer, cost
        )
        SELECT
            step_seconds, starts_at, coalesce(model, ''), coalesce(resource_id, ''),
            coalesce(proxy_key_id, ''), coalesce(requests, 0), coalesce(failed, 0),
            coalesce(cancelled, 0), coalesce(interrupted, 0), coalesce(attempts, 0),
            coalesce(failovers, 0), coalesce(input_tokens, 0),
            coalesce(cached_tokens, 0), coalesce(output_tokens, 0),
            coalesce(reasoning_tokens, 0), coalesce(latency_ms, 0),
            coalesce(first_token_ms, 0), coalesce(latency_25, 0),
            coalesce(latency_50, 0), coalesce(latency_100, 0),
            coalesce(latency_200, 0), coalesce(latency_400, 0),
            coalesce(latency_800, 0), coalesce(latency_1600, 0),
            coalesce(latency_3200, 0), coalesce(latency_6400, 0),
            coalesce(latency_12800, 0), coalesce(latency_25600, 0),
            coalesce(latency_51200, 0), coalesce(latency_102400, 0),
            coalesce(latency_204800, 0), coalesce(latency_409600, 0),
            coalesce(latency_longer, 0), coalesce(first_token_25, 0),
            coalesce(first_token_50, 0), coalesce(first_token_100, 0),
            coalesce(first_token_200, 0), coalesce(first_token_400, 0),
            coalesce(first_token_800, 0), coalesce(first_token_1600, 0),
            coalesce(first_token_3200, 0), coalesce(first_token_6400, 0),
            coalesce(first_token_12800, 0), coalesce(first_token_25600, 0),
            coalesce(first_token_51200, 0), coalesce(first_token_102400, 0),
            coalesce(first_token_204800, 0), coalesce(first_token_409600, 0),
            coalesce(first_token_longer, 0), cost
        FROM json_to_recordset(new_sums) AS added (
            step_seconds integer, starts_at timestamptz, model text,
            resource_id text, proxy_key_id text, requests bigint, failed bigint,
            cancelled bigint, interrupted bigint, attempts bigint, failovers bigint,
            input_tokens bigint, cached_tokens bigint, output_tokens bigint,
            reasoning_tokens bigint, latency_ms float8, first_token_ms float8,
            latency_25 bigint, latency_50 bigint, latency_100 bigint,
            latency_200 bigint, latency_400 bigint, latency_800 bigint,
            latency_1600 bigint, latency_3200 bigint, latency_6400 bigint,
            latency_12800 bigint, latency_25600 bigint, latency_51200 bigint,
            latency_102400 bigint, latency_204800 bigint, latency_409600 bigint,
            latency_longer bigint, first_token_25 bigint, first_token_50 bigint,
            first_token_100 bigint, first_token_200 bigint, first_token_400 bigint,
            first_token_800 bigint, first_token_1600 bigint,
            first_token_3200 bigint, first_token_6400 bigint,
            first_token_12800 bigint, first_token_25600 bigint,
            first_token_51200 bigint, first_token_102400 bigint,
            first_token_204800 bigint, first_token_409600 bigint,
            first_token_longer bigint, cost float8
        )
        ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (step_seconds, starts_at, model, resource_id, proxy_key_id) DO UPDATE SET
            requests = rollups.requests + excluded.requests,
            failed = rollups.failed + excluded.failed,
            cancelled = rollups.cancelled + excluded.cancelled,
            interrupted = rollups.interrupted + excluded.interrupted,
            attempts = rollups.attempts + excluded.attempts,
            failovers = rollups.failovers + excluded.failovers,
            input_tokens = rollups.input_tokens + excluded.input_tokens,
            cached_tokens = rollups.cached_tokens + excluded.cached_tokens,
            output_tokens = rollups.output_tokens + excluded.output_tokens,
            reasoning_tokens = rollups.reasoning_tokens + excluded.reasoning_tokens,
            latency_ms = rollups.latency_ms + excluded.latency_ms,
            first_token_ms = rollups.first_token_ms + excluded.first_token_ms,
            latency_25 = rollups.latency_25 + excluded.latency_25,
            latency_50 = rollups.latency_50 + excluded.latency_50,
            latency_100 = rollups.latency_100 + excluded.latency_100,
            latency_200 = rollups.latency_200 + excluded.latency_200,
            latency_400 = rollups.latency_400 + excluded.latency_400,
            latency_800 = rollups.latency_800 + excluded.latency_800,
            latency_1600 = rollups.latency_1600 + excluded.latency_1600,
            latency_3200 = rollups.latency_3200 + excluded.latency_3200,
            latency_6400 = rollups.latency_6400 + excluded.latency_6400,
            latency_12800 = rollups.latency_12800 + excluded.latency_12800,
            latency_25600 = rollups.latency_25600 + excluded.latency_25600,
            latency_51200 = rollups.latency_51200 + excluded.latency_51200,
            latency_102400 = rollups.latency_102400 + excluded.latency_102400,
            latency_204800 = rollups.latency_204800 + excluded.latency_204800,
            latency_409600 = rollups.latency_409600 + excluded.latency_409600,
            latency_longer = rollups.latency_longer + excluded.latency_longer,
            first_token_25 = rollups.first_token_25 + excluded.first_token_25,
            first_token_50 = rollups.first_token_50 + excluded.first_token_50,
            first_token_100 = rollups.first_token_100 + excluded.first_token_100,
            first_token_200 = rollups.first_token_200 + excluded.first_token_200,
            first_token_400 = rollups.first_token_400 + excluded.first_token_400,
            first_token_800 = rollups.first_token_800 + excluded.first_token_800,
            first_token_1600 = rollups.first_token_1600 + excluded.first_token_1600,
            first_token_3200 = rollups.first_token_3200 + excluded.first_token_3200,
            first_token_6400 = rollups.first_token_6400 + excluded.first_token_6400,
            first_token_12800 = rollups.first_token_12800 + excluded.first_token_12800,
            first_token_25600 = rollups.first_token_25600 + excluded.first_token_25600,
            first_token_51200 = rollups.first_token_51200 + excluded.first_token_51200,
            first_token_102400 = rollups.first_token_102400 + excluded.first_token_102400,
            first_token_204800 = rollups.first_token_204800 + excluded.first_token_204800,
            first_token_409600 = rollups.first_token_409600 + excluded.first_token_409600,
            first_token_longer = rollups.first_token_longer + excluded.first_token_longer,
            cost = coalesce(rollups.cost + excluded.cost, rollups.cost, excluded.cost);
    END IF;
    IF fresh > 0 THEN
        UPDATE totals SET total = total + fresh WHERE name = 'requests';
    END IF;
END $$;
