-- Budgets of keys and teams (JSON, see libs/common/budgets.py: Terms).
ALTER TABLE proxy_keys ADD COLUMN budget jsonb NOT NULL DEFAULT '{}';
ALTER TABLE teams ADD COLUMN budget jsonb NOT NULL DEFAULT '{}';
-- What a request cost by the price list when it ended, in billionths of a dollar. Null:
-- its model has no price, or its usage is not known.
ALTER TABLE requests ADD COLUMN cost_nanos bigint;

-- Prices of reasoning (null: that of the output), and of a service tier (empty: of all).
ALTER TABLE prices ADD COLUMN reasoning double precision;
ALTER TABLE prices ADD COLUMN service_tier text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE prices DROP CONSTRAINT prices_pkey;
ALTER TABLE prices ADD PRIMARY KEY (model, valid_from, service_tier);

-- What the requests used that retention deleted, by quarters of an hour, in which the
-- windows of all time zones begin. Budgets of long windows are summed with it.
CREATE TABLE deleted_spend (
    subject text COLLATE "C" NOT NULL,
    at      timestamptz NOT NULL,
    tokens  bigint NOT NULL,
    nanos   bigint NOT NULL,
    PRIMARY KEY (subject, at)
);

-- Adds what the requests of a table used that are older than `day`.
CREATE FUNCTION keep_spend_v1(child text, day timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO deleted_spend AS kept (subject, at, tokens, nanos)'
        ' SELECT subject, date_bin(''15 minutes'', created_at, ''2000-01-01Z''),'
        '        coalesce(sum(total_tokens) FILTER (WHERE total_tokens > 0), 0),'
        '        coalesce(sum(cost_nanos) FILTER (WHERE cost_nanos > 0), 0)'
        ' FROM %I, LATERAL (VALUES (''key:'' || proxy_key_id), (''team:'' || team_id))'
        '     AS who (subject)'
        ' WHERE subject IS NOT NULL AND created_at < $1'
        '   AND (total_tokens > 0 OR cost_nanos > 0)'
        ' GROUP BY 1, 2'
        ' ON CONFLICT (subject, at) DO UPDATE SET tokens = kept.tokens + excluded.tokens,'
        '     nanos = kept.nanos + excluded.nanos', child) USING day;
END $$;

CREATE OR REPLACE FUNCTION drop_partition_v1(child text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass(quote_ident(child)) IS NULL THEN
        RETURN false;
    END IF;
    IF child LIKE 'requests%' THEN
        PERFORM keep_spend_v1(child, 'infinity');
    END IF;
    EXECUTE format('DROP TABLE %I', child);
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION delete_strays_v1(parent text, day date, most integer)
RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    deleted integer;
BEGIN
    IF parent = 'requests' THEN
        -- All at once: a part that is deleted must not be added again.
        most := 2147483647;
        PERFORM keep_spend_v1('requests_default', day::timestamp AT TIME ZONE 'UTC');
    END IF;
    EXECUTE format(
        'DELETE FROM %1$I WHERE ctid IN'
        ' (SELECT ctid FROM %1$I WHERE created_at < $1 LIMIT $2)',
        parent || '_default') USING day::timestamp AT TIME ZONE 'UTC', most;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;
