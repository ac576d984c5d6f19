-- One row; run for each gateway of a batch. Reports may arrive in any order: counters
-- keep their maximum, other columns the newest value.
INSERT INTO gateways AS known (
    id, started_at, last_seen_at, accepted, ended, held, state, stored, shard
)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    started_at = coalesce(known.started_at, excluded.started_at),
    last_seen_at = max(
        coalesce(known.last_seen_at, excluded.last_seen_at),
        coalesce(excluded.last_seen_at, known.last_seen_at)
    ),
    accepted = max(known.accepted, excluded.accepted),
    ended = max(known.ended, excluded.ended),
    held = CASE
        WHEN excluded.last_seen_at >= coalesce(known.last_seen_at, '')
        THEN excluded.held ELSE known.held
    END,
    state = CASE
        WHEN excluded.state = 'closed' THEN 'closed' ELSE known.state
    END,
    stored = known.stored + excluded.stored,
    shard = excluded.shard
