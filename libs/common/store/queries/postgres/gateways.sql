-- The ledger of each gateway that was requested, was seen recently, or has missing
-- requests; the sum of all others in a row with id '*'. A request with a dead letter
-- that was stored later, after a retry or replay, is not dead.
WITH dead AS (
    SELECT coalesce(letter.gateway_id, '') AS gateway_id,
           count(DISTINCT coalesce(letter.event_id, letter.id)) AS letters
    FROM dead_letters AS letter
    WHERE letter.kind = 'request'
      AND NOT EXISTS (SELECT 1 FROM requests WHERE requests.id = letter.event_id)
    GROUP BY 1
),
books AS (
    SELECT every.id, started_at, last_seen_at,
           coalesce(accepted, 0) AS accepted, coalesce(ended, 0) AS ended,
           coalesce(held, 0) AS held, coalesce(state, 'closed') AS state,
           coalesce(stored, 0) AS stored, coalesce(letters, 0) AS dead,
           coalesce(shard, 'rpx') AS shard
    FROM (SELECT id FROM gateways UNION SELECT gateway_id FROM dead) AS every
    LEFT JOIN gateways ON gateways.id = every.id
    LEFT JOIN dead ON dead.gateway_id = every.id
),
sorted AS (
    SELECT books.*,
           coalesce(last_seen_at > now() - interval '1 day', false)
               OR accepted > stored + dead OR id = ANY(%(ids)s::text[]) AS listed
    FROM books
)
SELECT id, started_at, last_seen_at, accepted, ended, held, state, stored, dead, shard
FROM sorted WHERE listed
UNION ALL
SELECT '*', NULL, NULL, coalesce(sum(stored + dead), 0),
       coalesce(sum(stored + dead), 0), 0, 'closed',
       coalesce(sum(stored), 0), coalesce(sum(dead), 0), ''
FROM sorted WHERE NOT listed
