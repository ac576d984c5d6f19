-- A stack on SQLite has one shard: nothing is kept.
SELECT :name AS name
