-- What other shards spent after a row of the log, in the order of commits; always a row, with
-- the newest one.
SELECT newest.number AS newest, used.number, used.subject,
       (extract(epoch FROM used.at) * 1000)::bigint AS at_ms, used.tokens, used.nanos
FROM (SELECT coalesce(max(number), 0) AS number FROM shard_spend) AS newest
LEFT JOIN LATERAL (
    SELECT number, subject, at, tokens, nanos FROM shard_spend
    WHERE number > %(seen)s AND shard <> %(shard)s
    ORDER BY number
    LIMIT %(rows)s
) AS used ON true
