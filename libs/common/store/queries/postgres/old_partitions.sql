-- Partitions of days before %(day)s, oldest first. The default partition has no day.
SELECT child.relname AS child
FROM unnest(
    ARRAY['requests', 'decisions', 'events', 'payloads', 'minted_ids']
) AS parent
JOIN pg_inherits ON inhparent = to_regclass(quote_ident(parent))
JOIN pg_class AS child ON child.oid = inhrelid
WHERE to_date(substring(child.relname FROM '_([0-9]{8})$'), 'YYYYMMDD') < %(day)s
ORDER BY right(child.relname, 8), child.relname
