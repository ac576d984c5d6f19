-- The books of each gateway process: what it says it accepted and ended, and how many
-- of its requests were ever stored, counted by the transaction that stores them.
-- Figures only grow, so a report that comes late or twice changes nothing.
CREATE TABLE gateways (
    id           TEXT PRIMARY KEY,
    started_at   TEXT,
    last_seen_at TEXT,
    accepted     INTEGER NOT NULL DEFAULT 0,
    ended        INTEGER NOT NULL DEFAULT 0,
    held         INTEGER NOT NULL DEFAULT 0,
    state        TEXT NOT NULL DEFAULT 'running',
    stored       INTEGER NOT NULL DEFAULT 0
) STRICT;
-- Requests from before there were such books are on nobody's.
INSERT INTO gateways (id, accepted, ended, state, stored)
SELECT '', total, total, 'closed', total FROM totals
WHERE name = 'requests' AND total > 0;

-- Whose request was parked, as far as its remains tell.
ALTER TABLE dead_letters ADD COLUMN gateway_id TEXT;
CREATE INDEX dead_letters_of_requests ON dead_letters (event_id) WHERE kind = 'request';
