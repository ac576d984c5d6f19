-- The functions of the library. libs/common/routing/functions.py and
-- libs/common/proxy_keys.py call them.
--
-- Keys read, keys written: none

local function register(name, callback)
  redis.register_function(NAMESPACE .. '_' .. name, callback)
end

local function register_reader(name, callback)
  redis.register_function {
    function_name = NAMESPACE .. '_' .. name, callback = callback, flags = { 'no-writes' },
  }
end

-- Requests
register('acquire_v1', calls.acquire_v1)
register('acquire_v2', calls.acquire_v2)
register('acquire_v3', calls.acquire_v3)
register('acquire_v4', calls.acquire_v4)
register('queue_v1', calls.queue_v1)
register('turns_v1', queues.turns)
register('leave_v1', queues.left)
register('pin_v1', pin)
register('pin_v2', pin)
register('pin_v3', calls.pin_v3)
register('pin_v4', calls.pin_v4)
register('target_v1', calls.pin_v4)
register('release_v1', release_for_anybody)
register('release_v2', release_for_tenant)
register('release_v3', release_with_limits)
register('acquire_v5', calls.acquire_v5)
register('queue_v2', calls.queue_v2)
register('pin_v5', calls.pin_v5)
register('target_v2', calls.pin_v5)
register('release_v4', release_counted)
register('release_v5', release_known)
register('resend_v1', budgets.resend)
register('doubt_v1', budgets.doubt_all)
register_reader('check_v1', check)
register_reader('owners_v1', owners_of)
register_reader('explain_v1', calls.explain_v1)
register_reader('explain_v2', calls.explain_v2)
register_reader('explain_v3', calls.explain_v3)
register_reader('queues_v1', queues.shown)

-- Gateways
register('heartbeat_v2', heartbeat)
register('resume_v1', resume)
register('adopt_v1', adopt)
register('abandon_v1', abandon)
register('held_v1', held)
register_reader('held_v2', leases.page)
register('account_v1', account)

-- Router and health service
register('publish_v1', publish)
register('reap_v1', reaping.whole)
register('reap_v2', reaping.part)
register('sweep_v1', budgets.sweep)
register('states_v1', states)
register('verdict_v1', verdict)

-- Proxy keys
register('keys_v1', change_keys)
register('limits_v1', limits)
register('spend_v1', spend)
register('count_v1', budgets.count_all)
register_reader('spend_v2', budgets.spend)
register_reader('used_v1', budgets.of_minute)
register('reserve_v1', budgets.restore)
register('recounts_v1', budgets.wanted)
register('recount_v1', budgets.note_and_tell)
register('recount_v2', budgets.note_events)
register('recounted_v1', budgets.summed_by_older)
register('recounted_v2', budgets.summed)
register('others_v1', budgets.add_others)
