-- Sets the time of last use for the keys in a batch.
UPDATE proxy_keys SET
    last_used_at = greatest(proxy_keys.last_used_at, used.last_used_at)
FROM json_to_recordset(%(rows)s) AS used (id text, last_used_at timestamptz)
WHERE proxy_keys.id = used.id
