-- What a window was spent on, without the requests of a JSON array: by those that are
-- stored, and by those that retention deleted.
SELECT coalesce(sum(tokens), 0) AS tokens, coalesce(sum(nanos), 0) AS nanos
FROM (
    SELECT
        CASE WHEN total_tokens > 0 THEN total_tokens END AS tokens,
        CASE WHEN cost_nanos > 0 THEN cost_nanos END AS nanos
    FROM requests
    WHERE proxy_key_id = :id
        AND created_at >= :starts
        AND created_at < :ends
        AND id NOT IN (SELECT value FROM json_each(:ids))
    UNION ALL
    SELECT tokens, nanos
    FROM deleted_spend
    WHERE subject = 'key:' || :id
        AND at >= :starts AND at < :ends
) AS used
