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
redis.register_function('rpx_acquire_v1', acquire_for_anybody)
redis.register_function('rpx_acquire_v2', acquire_for_tenant)
redis.register_function('rpx_pin_v1', pin)
redis.register_function('rpx_pin_v2', pin)
redis.register_function('rpx_release_v1', release_for_anybody)
redis.register_function('rpx_release_v2', release_for_tenant)
register_reader('rpx_check_v1', check)
register_reader('rpx_explain_v1', explain)

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
