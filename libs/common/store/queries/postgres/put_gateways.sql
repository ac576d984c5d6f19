-- Updates the ledgers of gateways with the reports and the stored requests of a batch.
-- Reports may arrive in any order: counters keep their maximum, other columns the
-- newest value.
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
