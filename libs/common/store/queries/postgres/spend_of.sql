-- What a key or a team (the other is null) used in a window, without the requests of a JSON
-- array: by those that are stored, and by those that retention deleted. newest: up to which
-- row of shard_spend that includes what other shards spent.
SELECT coalesce(sum(tokens), 0)::bigint AS tokens, coalesce(sum(nanos), 0)::bigint AS nanos,
    (SELECT coalesce(max(number), 0) FROM shard_spend) AS newest
FROM (
    SELECT
        CASE WHEN total_tokens > 0 THEN total_tokens END AS tokens,
        CASE WHEN cost_nanos > 0 THEN cost_nanos END AS nanos
    FROM (
        -- Each has an index of its own.
        SELECT id, created_at, total_tokens, cost_nanos FROM requests
        WHERE proxy_key_id = %(key)s
        UNION ALL
        SELECT id, created_at, total_tokens, cost_nanos FROM requests
        WHERE team_id = %(team)s
    ) AS theirs
    WHERE created_at >= %(starts)s::timestamptz
        AND created_at < %(ends)s::timestamptz
        AND id NOT IN (SELECT jsonb_array_elements_text(%(ids)s::jsonb))
    UNION ALL
    SELECT tokens, nanos
    FROM deleted_spend
    WHERE subject = %(subject)s
        AND at >= %(starts)s::timestamptz AND at < %(ends)s::timestamptz
) AS used
