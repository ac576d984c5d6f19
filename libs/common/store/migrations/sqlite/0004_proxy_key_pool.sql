-- The pool a proxy key is pinned to; `pools` are those it may choose from.
ALTER TABLE proxy_keys ADD COLUMN pool_id TEXT;
