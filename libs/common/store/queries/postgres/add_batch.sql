-- Adds up what a batch changes (migration 0019), and what other shards are told (0021).
SELECT
    add_batch_v1(
        %(put_sessions)s::json, %(put_gateways)s::json, %(touch_proxy_keys)s::json,
        %(put_rollups)s::json, %(fresh)s::bigint
    ),
    add_shard_v1(%(shard)s, %(put_gateways)s::json, %(add_spend)s::json)
