-- Leases: which gateway serves which request on which resource. And the gateways that
-- hold them.
--
-- Keys read:    leases:<res>, retired, gateways, reports, health:<res>, born,
--               catalogue:version, ranking:<pool>
-- Keys written: leases:<res>, retired, gateways, reports, health:<res>, ranking:<pool>,
--               and what budgets.lua writes
--
-- A lease is a field of a hash, so no crash or repeated call can make the number in
-- flight (the hash's size) drift.

local budgets = {}  -- filled by budgets.lua
local leases = {
  PAGE = 300,   -- the work of a page, in leases that are read: 0.5 to 1 ms
  COUNT = 150,  -- asked of HSCAN at once
  PASSED = 5,   -- leases that HSCAN passes over in the time in which one is read
}

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

-- The same in an order that no call changes, so that a later one can go on behind an id.
function leases.holders(known)
  local ids = every_holder(known)
  table.sort(ids)
  return ids
end

-- Redis serves nobody during a call, so what looks at all leases does it in pages: each
-- call does a bounded amount of work and says where the next one goes on. That is the
-- cursor `at` of HSCAN in the leases of the resource `from`, both '' at first. Leases
-- may be taken and end between the calls. HSCAN finds those that are there all the time,
-- some of them twice. It may miss leases that are taken meanwhile, and those that move
-- to another resource.
-- `found(id, leases)` gets those whose field matches `pattern` (all: '*') as HSCAN lists
-- them, some `count` at a time, and returns the work that they made, in units of what
-- reading a lease takes. Returns `at` and `from` of the next page, or nil at the end.
function leases.walk(known, at, from, pattern, count, found)
  local work = 0
  for _, id in ipairs(leases.holders(known)) do
    if id >= from then
      if id > from or at == '' then at = '0' end
      local key = leases_of(id)
      local passed = 1 + math.min(count, call('HLEN', key)) / leases.PASSED
      repeat
        if work >= leases.PAGE then return at, id end
        local listed = call('HSCAN', key, at, 'MATCH', pattern, 'COUNT', count)
        at = listed[1]
        work = work + passed + found(id, listed[2])
      until at == '0'
    end
  end
end

-- What MATCH finds only literally.
function leases.literal(text)
  return (string.gsub(text, '[*?%[\\]', '\\%0'))
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
  local ids, reserving = every_holder(known), budgets.reserving()
  for i = 2, #args do
    local field = field_of(args[1], args[i])
    for _, id in ipairs(ids) do
      local key = leases_of(id)
      local record = call('HGET', key, field)
      if record then
        call('HDEL', key, field)
        reweigh(known, id)
        if reserving then budgets.end_reservations(record, field) end
        dropped = dropped + 1
        break
      end
    end
  end
  return dropped
end

-- held_v2  ARGV: gateway, then the place that the reply before named; nothing at first.
-- Returns {place of the next page, or {} at the end; requests whose leases the gateway
-- holds}.
function leases.page(_, args)
  local found, prefix = {}, args[1] .. '/'
  local function keep(_, listed)
    for i = 1, #listed, 2 do
      found[#found + 1] = string.sub(listed[i], #prefix + 1)
    end
    return #listed / 2
  end
  local at, from = leases.walk(current(), args[2] or '', args[3] or '',
    leases.literal(prefix) .. '*', leases.COUNT, keep)
  return { { at, from }, found }
end

-- held_v1  ARGV: gateway.  All of them in one call. For gateways of the version before.
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
