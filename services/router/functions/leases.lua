-- Leases: which gateway serves which request on which resource. And the gateways that
-- hold them.
--
-- Keys read:    leases:<res>, retired, gateways, reports, health:<res>, born,
--               catalogue:version, ranking:<pool>
-- Keys written: leases:<res>, retired, gateways, reports, sessions, pauses,
--               pauses:<model>, health:<res>, ranking:<pool>, the telemetry stream
--
-- A lease is a field of a hash, so no crash or repeated call can make the number in
-- flight (the hash's size) drift.

local function field_of(gateway, request)
  return gateway .. '/' .. request
end

-- For resources that may have left the catalogue: they keep leases until these end.
local function leases_of(id)
  return TAG .. 'leases:' .. id
end

local function every_holder(known)
  local ids = call('SMEMBERS', TAG .. 'retired')
  for _, resource in ipairs(known and known.list or {}) do ids[#ids + 1] = resource.id end
  return ids
end

-- Removes a lease from whichever resource holds it. Returns that resource's id or nil.
local function drop_lease(known, field)
  for _, id in ipairs(every_holder(known)) do
    if call('HDEL', leases_of(id), field) == 1 then return id end
  end
end

-- Updates what derives from the number of leases on a resource.
local function reweigh(known, id, state)
  local resource = known and known.by_id[id]
  if resource then
    if available(state or state_of(resource)) then rank_by_load(resource) end
  elseif call('HLEN', leases_of(id)) == 0 then
    call('SREM', TAG .. 'retired', id)
  end
end

-- Returns 1 when the lease is new, 0 when the request held it already.
local function take_lease(known, ask, resource)
  local field = field_of(ask.gateway, ask.request)
  if ask.previous ~= '' and ask.previous ~= resource.id
      and call('HDEL', leases_of(ask.previous), field) == 1 then
    reweigh(known, ask.previous)
  end
  return call('HSET', resource.leases, field,
    ask.lease .. ',"attempts":' .. ask.attempt .. resource.ends_lease)
end

-- Marks the request as the half-open trial of its resource, of its model there, or both.
local function begin_trial(ask, resource, value)
  local circuit = ask.cooldowns and ask.cooldowns[resource.id]
  local now = clock(ask.now)
  if circuit then
    circuit.trial, circuit.trial_until = ask.request, now + TRIAL_MS
    share_circuit(ask.known.accounts[resource.account_id], ask.cooldowns, circuit)
    write_cooldowns(ask.model, ask.cooldowns, now)
  end
  if value >= MOMENTS then
    call('HSET', resource.health, 'trial', ask.request)
    rank(resource, now + TRIAL_MS)
  else
    rank_by_load(resource)
  end
end

-- Gateways ---------------------------------------------------------------------------

-- heartbeat_v2  ARGV: gateway, now, the gateway's ledger report as JSON or ''.
-- Returns {the catalogue's version or '', was the gateway known 0|1, `born`, and what
-- stream_ends returns}. An unknown gateway was reaped, or Redis was emptied: it should
-- resume its leases. A changed `born` means that Redis was emptied since the last
-- heartbeat, even if the reply to one in between was lost.
local function heartbeat(keys, args)
  local version = call('GET', VERSION)
  -- Not registered without a catalogue: the gateway could not resume yet, and would be
  -- known the next time.
  if not version then return { '', 0, '', '', '0-0', 0 } end
  local now = clock(args[2])
  local added = call('ZADD', TAG .. 'gateways', now, args[1])
  beats_alone = only == args[1] and added == 0 and beats_alone + 1 or 1
  only = call('ZCARD', TAG .. 'gateways') == 1 and args[1]
  if args[3] ~= '' then
    call('HSET', TAG .. 'reports', args[1], string.format('%.0f|%s', now, args[3]))
  end
  local born = call('GET', TAG .. 'born') or ''
  return { version, 1 - added, born, stream_ends(keys[2]) }
end

-- resume_v1  ARGV: gateway, then triples of request, resource, lease record.
-- Restores leases of requests that are still running. Returns how many.
local function resume(_, args)
  local known, touched, restored = current(), {}, 0
  for i = 2, #args, 3 do
    local resource = known and known.by_id[args[i + 1]]
    if resource then
      local field = field_of(args[1], args[i])
      restored = restored + call('HSETNX', resource.leases, field, args[i + 2])
      touched[resource.id] = true
    end
  end
  for id in pairs(touched) do reweigh(known, id) end
  return restored
end

-- abandon_v1  ARGV: gateway, requests.  Drops leases that the gateway does not know:
-- of an acquire whose reply was lost. Returns how many.
local function abandon(_, args)
  local known, dropped = current(), 0
  for i = 2, #args do
    local held = drop_lease(known, field_of(args[1], args[i]))
    if held then
      reweigh(known, held)
      dropped = dropped + 1
    end
  end
  return dropped
end

-- held_v1  ARGV: gateway.  Returns the requests whose leases it holds.
local function held(_, args)
  local found, prefix = {}, args[1] .. '/'
  for _, id in ipairs(every_holder(current())) do
    for _, field in ipairs(call('HKEYS', leases_of(id))) do
      if string.sub(field, 1, #prefix) == prefix then
        found[#found + 1] = string.sub(field, #prefix + 1)
      end
    end
  end
  return found
end

local function end_lease(stream, now, known, id, field, record)
  local request = string.match(field, '/([^/]*)$')
  call('HDEL', leases_of(id), field)
  local resource = known and known.by_id[id]
  if resource then
    -- If the request was a trial, the next one is.
    local said = { stream = stream, now = now, by = request, kind = 'neutral' }
    judge(said, resource, read_health(resource))
  end
  emit(stream, 'request', request, string.format(
    '%s,"completed_at_ms":%.0f,"outcome":"interrupted","error_code":"gateway_lost",'
    .. '"error_message":"The gateway that served this request stopped answering."}',
    string.sub(record, 1, -2), now))
end

-- Ends the leases on a resource that silent gateways hold; returns how many. With
-- `strays` the holders of all others count as heard now, unless they are known.
local function reap_resource(stream, now, known, id, is_silent, strays)
  local leases, reaped = call('HGETALL', leases_of(id)), 0
  for i = 1, #leases, 2 do
    local gateway = string.match(leases[i], '^(.*)/[^/]*$')
    if is_silent[gateway] then
      end_lease(stream, now, known, id, leases[i], leases[i + 1])
      reaped = reaped + 1
    elseif strays then
      call('ZADD', TAG .. 'gateways', 'NX', now, gateway)
    end
  end
  if reaped > 0 then reweigh(known, id) end
  return reaped
end

-- Emits the last ledger report of a silent gateway.
local function pass_on_report(stream, gateway)
  local report = call('HGET', TAG .. 'reports', gateway)
  if not report then return end
  local at, books = string.match(report, '^(%d+)|(.*)$')
  emit(stream, 'gateway', gateway .. ':' .. at, books)
  call('HDEL', TAG .. 'reports', gateway)
end

local budgets = {}  -- filled by budgets.lua

-- reap_v1  ARGV: silent ms, now, look for strays 0|1.
-- Ends the leases of gateways without a heartbeat for that long. Emits an `interrupted`
-- request event for each lease, and a `gateway` event with the last ledger report. A
-- stray is a lease of a gateway without any heartbeat since it was reaped: it expires
-- after the same time from now. Returns how many leases ended.
local function reap(keys, args)
  local known, now, strays = current(), clock(args[2]), args[3] == '1'
  local is_silent, reaped = {}, 0
  local silent = call('ZRANGEBYSCORE', TAG .. 'gateways', '-inf',
    now - tonumber(args[1]))
  for _, gateway in ipairs(silent) do is_silent[gateway] = true end
  if strays or #silent > 0 then
    for _, id in ipairs(every_holder(known)) do
      reaped = reaped + reap_resource(keys[2], now, known, id, is_silent, strays)
    end
  end
  for _, gateway in ipairs(silent) do pass_on_report(keys[2], gateway) end
  if #silent > 0 then call('ZREM', TAG .. 'gateways', unpack(silent)) end
  call('ZREMRANGEBYSCORE', TAG .. 'sessions', '-inf', now)
  call('ZREMRANGEBYSCORE', TAG .. 'pauses', '-inf', now - MEMORY_MS)
  call('ZREMRANGEBYSCORE', TAG .. 'limits', '-inf', now)
  budgets.sweep(known)
  return reaped
end
