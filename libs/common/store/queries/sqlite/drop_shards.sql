-- As note_shard.
SELECT NULL AS name WHERE :before IS NULL
