-- The functions of the library. libs/common/routing/functions.py and
-- libs/common/proxy_keys.py call them.
--
-- Keys read, keys written: none

local function register_reader(name, callback)
  redis.register_function {
    function_name = name, callback = callback, flags = { 'no-writes' },
  }
end

-- Requests
redis.register_function('rpx_acquire_v1', calls.acquire_v1)
redis.register_function('rpx_acquire_v2', calls.acquire_v2)
redis.register_function('rpx_acquire_v3', calls.acquire_v3)
redis.register_function('rpx_acquire_v4', calls.acquire_v4)
redis.register_function('rpx_queue_v1', calls.queue_v1)
redis.register_function('rpx_turns_v1', queues.turns)
redis.register_function('rpx_leave_v1', queues.left)
redis.register_function('rpx_pin_v1', pin)
redis.register_function('rpx_pin_v2', pin)
redis.register_function('rpx_pin_v3', calls.pin_v3)
redis.register_function('rpx_pin_v4', calls.pin_v4)
redis.register_function('rpx_target_v1', calls.pin_v4)
redis.register_function('rpx_release_v1', release_for_anybody)
redis.register_function('rpx_release_v2', release_for_tenant)
redis.register_function('rpx_release_v3', release_with_limits)
redis.register_function('rpx_acquire_v5', calls.acquire_v5)
redis.register_function('rpx_queue_v2', calls.queue_v2)
redis.register_function('rpx_pin_v5', calls.pin_v5)
redis.register_function('rpx_target_v2', calls.pin_v5)
redis.register_function('rpx_release_v4', release_counted)
redis.register_function('rpx_release_v5', release_known)
redis.register_function('rpx_resend_v1', budgets.resend)
redis.register_function('rpx_doubt_v1', budgets.doubt_all)
register_reader('rpx_check_v1', check)
register_reader('rpx_owners_v1', owners_of)
register_reader('rpx_explain_v1', calls.explain_v1)
register_reader('rpx_explain_v2', calls.explain_v2)
register_reader('rpx_explain_v3', calls.explain_v3)
register_reader('rpx_queues_v1', queues.shown)

-- Gateways
redis.register_function('rpx_heartbeat_v2', heartbeat)
redis.register_function('rpx_resume_v1', resume)
redis.register_function('rpx_adopt_v1', adopt)
redis.register_function('rpx_abandon_v1', abandon)
redis.register_function('rpx_held_v1', held)
redis.register_function('rpx_account_v1', account)

-- Router and health service
redis.register_function('rpx_publish_v1', publish)
redis.register_function('rpx_reap_v1', reap)
redis.register_function('rpx_states_v1', states)
redis.register_function('rpx_verdict_v1', verdict)

-- Proxy keys
redis.register_function('rpx_keys_v1', change_keys)
redis.register_function('rpx_limits_v1', limits)
redis.register_function('rpx_spend_v1', spend)
redis.register_function('rpx_count_v1', budgets.count_all)
register_reader('rpx_spend_v2', budgets.spend)
register_reader('rpx_used_v1', budgets.of_minute)
redis.register_function('rpx_reserve_v1', budgets.restore)
redis.register_function('rpx_recounts_v1', budgets.wanted)
redis.register_function('rpx_recount_v1', budgets.note_events)
redis.register_function('rpx_recounted_v1', budgets.summed)
