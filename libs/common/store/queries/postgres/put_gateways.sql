-- What a batch says of gateways, and how many of their requests it stored. Reports
-- come in any order: what only grows is kept at its most, the rest by the newest.
INSERT INTO gateways AS known (
    id, started_at, last_seen_at, accepted, ended, held, state, stored
)
SELECT * FROM json_to_recordset(%(rows)s) AS told (
    id text, started_at timestamptz, last_seen_at timestamptz, accepted bigint,
    ended bigint, held bigint, state text, stored bigint
)
ORDER BY told.id
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
    stored = known.stored + excluded.stored
