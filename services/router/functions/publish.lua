-- Publishing a catalogue, and what derives from it. For the router.
--
-- Keys read:    catalogue, catalogue:version, accounts, health:<res>, leases:<res>
-- Keys written: catalogue, catalogue:version, born, accounts, ranking:<pool>,
--               health:<res>, retired, unproven, the telemetry stream

-- account_v1  ARGV: resource, account.  Stores the account that an upstream's
-- headers named for a key. Returns 1 when it is new, else 0.
local function account(_, args)
  local before = call('HGET', TAG .. 'accounts', args[1])
  if before == args[2] then return 0 end
  call('HSET', TAG .. 'accounts', args[1], args[2])
  return 1
end

-- Removes what the previous catalogue left: rankings, and the health of resources that
-- are gone or have another key or address. Those start without a record.
local function forget(before, after)
  for _, ranking in pairs(before.rankings) do call('DEL', ranking) end
  for _, old in ipairs(before.list) do
    local new = after.by_id[old.id]
    if not new or new.credential ~= old.credential or new.base_url ~= old.base_url then
      call('DEL', old.health)
    end
    if not new and call('HLEN', old.leases) > 0 then
      call('SADD', TAG .. 'retired', old.id)
    end
  end
end

local function rank_anew(resource)
  local health = read_health(resource)
  if health.state == 'unhealthy' then
    rank(resource, NEVER)
  elseif health.state == 'degraded' then
    rank(resource, health.until_ms)
  else
    if health.state == 'unknown' then call('SADD', TAG .. 'unproven', resource.id) end
    rank_by_load(resource)
  end
end

-- publish_v1  ARGV: version, catalogue JSON, event id, registry event JSON.
-- Returns 1, or 0 when that version is published already.
local function publish(keys, args)
  local before = current()
  if before and before.version == args[1] then return 0 end
  local after = index(args[2], args[1])
  if before then forget(before, after) else budgets.forget() end
  call('DEL', TAG .. 'unproven')
  call('SET', TAG .. 'born', string.format('%.0f', clock('')), 'NX')
  call('SET', TAG .. 'catalogue', args[2])
  call('SET', TAG .. 'catalogue:version', args[1])
  cached = after
  for _, resource in ipairs(after.list) do
    call('SREM', TAG .. 'retired', resource.id)
    rank_anew(resource)
  end
  emit(keys[2], 'registry', args[3], args[4])
  return 1
end
