-- What keys used while they were in a team.
SELECT
    proxy_key_id AS id, count(*) AS requests,
    coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(output_tokens), 0)::bigint AS output_tokens,
    coalesce(sum(total_tokens), 0)::bigint AS total_tokens
FROM requests
WHERE team_id = :id AND created_at >= :since::timestamptz
GROUP BY proxy_key_id
