-- As note_shard.
SELECT NULL AS name WHERE false
