-- As in Postgres.
ALTER TABLE proxy_keys ADD COLUMN budget TEXT NOT NULL DEFAULT '{}';
ALTER TABLE teams ADD COLUMN budget TEXT NOT NULL DEFAULT '{}';
ALTER TABLE requests ADD COLUMN cost_nanos INTEGER;

-- A primary key cannot be changed in place.
DROP VIEW costs_by_day; -- 0016 has it
ALTER TABLE prices RENAME TO prices_before;
CREATE TABLE prices (
    model        TEXT NOT NULL,
    valid_from   TEXT NOT NULL,
    input        REAL NOT NULL,
    cached_input REAL NOT NULL,
    output       REAL NOT NULL,
    reasoning    REAL,
    service_tier TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (model, valid_from, service_tier)
) STRICT;
INSERT INTO prices (model, valid_from, input, cached_input, output)
SELECT model, valid_from, input, cached_input, output FROM prices_before;
DROP TABLE prices_before;

CREATE TABLE deleted_spend (
    subject TEXT NOT NULL,
    at      TEXT NOT NULL,
    tokens  INTEGER NOT NULL,
    nanos   INTEGER NOT NULL,
    PRIMARY KEY (subject, at)
) STRICT;
-- Rows that are replaced used nothing that is known.
CREATE TRIGGER keep_spend AFTER DELETE ON requests
WHEN old.total_tokens > 0 OR old.cost_nanos > 0
BEGIN
    INSERT INTO deleted_spend (subject, at, tokens, nanos)
    SELECT
        who.subject,
        strftime('%Y-%m-%dT%H:', old.created_at)
            || printf('%02d', strftime('%M', old.created_at) / 15 * 15) || ':00.000Z',
        max(coalesce(old.total_tokens, 0), 0),
        max(coalesce(old.cost_nanos, 0), 0)
    FROM (
        SELECT 'key:' || old.proxy_key_id AS subject
        UNION ALL SELECT 'team:' || old.team_id
    ) AS who
    WHERE who.subject IS NOT NULL
    ON CONFLICT (subject, at) DO UPDATE SET
        tokens = tokens + excluded.tokens, nanos = nanos + excluded.nanos;
END;
