-- What a key or a team (the other is null) used in a window, without the requests of a JSON
-- array: by those that are stored, and by those that retention deleted. newest: there are no
-- other shards.
SELECT coalesce(sum(tokens), 0) AS tokens, coalesce(sum(nanos), 0) AS nanos,
    0 AS newest
FROM (
    SELECT
        CASE WHEN total_tokens > 0 THEN total_tokens END AS tokens,
        CASE WHEN cost_nanos > 0 THEN cost_nanos END AS nanos
    FROM (
        -- Each has an index of its own.
        SELECT id, created_at, total_tokens, cost_nanos FROM requests
        WHERE proxy_key_id = :key
        UNION ALL
        SELECT id, created_at, total_tokens, cost_nanos FROM requests
        WHERE team_id = :team
    ) AS theirs
    WHERE created_at >= :starts
        AND created_at < :ends
        AND id NOT IN (SELECT value FROM json_each(:ids))
    UNION ALL
    SELECT tokens, nanos
    FROM deleted_spend
    WHERE subject = :subject
        AND at >= :starts AND at < :ends
) AS used
