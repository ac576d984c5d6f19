-- What a window was spent on, without the requests of a JSON array: by those that are
-- stored, and by those that retention deleted.
SELECT coalesce(sum(tokens), 0)::bigint AS tokens, coalesce(sum(nanos), 0)::bigint AS nanos
FROM (
    SELECT
        CASE WHEN total_tokens > 0 THEN total_tokens END AS tokens,
        CASE WHEN cost_nanos > 0 THEN cost_nanos END AS nanos
    FROM requests
    WHERE team_id = %(id)s
        AND created_at >= %(starts)s::timestamptz
        AND created_at < %(ends)s::timestamptz
        AND id NOT IN (SELECT jsonb_array_elements_text(%(ids)s::jsonb))
    UNION ALL
    SELECT tokens, nanos
    FROM deleted_spend
    WHERE subject = 'team:' || %(id)s
        AND at >= %(starts)s::timestamptz AND at < %(ends)s::timestamptz
) AS used
