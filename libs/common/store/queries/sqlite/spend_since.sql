-- A stack on SQLite has one shard.
SELECT 0 AS newest, NULL AS number
