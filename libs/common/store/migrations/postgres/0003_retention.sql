-- Retention, a partition at a time: each in a transaction of its own, so that none
-- waits for another's readers.

-- Drop one partition, unless another process just did.
CREATE FUNCTION drop_partition_v1(child text) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass(quote_ident(child)) IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', child);
    RETURN true;
END $$;

-- Delete up to `most` rows of days before `day` that were kept in the default
-- partition, because their day had no partition when they came.
CREATE FUNCTION delete_strays_v1(parent text, day date, most integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    deleted integer;
BEGIN
    EXECUTE format(
        'DELETE FROM %1$I WHERE ctid IN'
        ' (SELECT ctid FROM %1$I WHERE created_at < $1 LIMIT $2)',
        parent || '_default') USING day::timestamp AT TIME ZONE 'UTC', most;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;
