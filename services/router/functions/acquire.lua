-- Acquire: chooses a resource, takes a lease on it and records the decision.
--
-- Keys read:    catalogue:version, catalogue, pauses:<model>, session:<digest>,
--               bound:<digest>, ranking:<pool>, unproven, born, health:<res>
-- Keys written: leases:<res>, ranking:<pool>, retired, the telemetry stream; for a trial
--               also health:<res>, pauses, pauses:<model>

local FIRST_ID = 4                    -- place of the first id in the reply of `remembered`
local ASK = { first_id = FIRST_ID }  -- reused by each call: a new table costs more

-- Reads with one MGET what affinity and cooldowns know. Missing keys are false.
local function remembered(ask, args, first)
  local version = TAG .. 'catalogue:version'
  -- Without a model or a session these are keys that never exist.
  local cooldowns, session = TAG .. 'pauses:' .. ask.model, TAG .. 'session:' .. ask.named
  local values
  if ask.count == 0 and ask.named == '' then
    values = redis.call('MGET', version, cooldowns)
  elseif ask.count == 0 then
    values = redis.call('MGET', version, cooldowns, session)
  elseif ask.count == 1 then
    values = redis.call('MGET', version, cooldowns, session, TAG .. 'bound:' .. args[first])
  else
    local names = { version, cooldowns, session }
    for i = 1, ask.count do names[3 + i] = TAG .. 'bound:' .. args[first - 1 + i] end
    values = redis.call('MGET', unpack(names))
  end
  ask.ids = values
  ask.cooldowns = read_cooldowns(values[2])
  if ask.named ~= '' then ask.session = values[3] end
  return values[1]
end

-- ARGV of rpx_acquire_v1 and rpx_explain_v1:
--    1-4  gateway, request, attempt, decision id
--    5-7  pool or '', session digest or '', model digest or ''
--    8    is the request bound to an account 0|1
--    9    was SQL asked for unknown ids 0|1; r: the request was rewritten and is bound
--         to no account any more
--   10    owner that SQL returned, or ''
--   11    draw (a random number)
--   12,13 head of the decision event, head of the lease record: JSON objects without
--         the closing brace
--   14,15 now, the resource that holds this request's lease or ''
--   16    number of bound ids; then their digests, and the resources already tried
-- rpx_acquire_v2 has after 16: tenant or '', strict 0|1, and the kinds of the ids, one
-- letter each (n: clients do not invent it, r: they may) or '' when the owners of unknown
-- ids do not matter; then the digests of the bound and of further ids, and the resources.
local function read_ask(args, isolated)
  local ask = ASK
  ask.gateway, ask.request, ask.attempt, ask.decision = args[1], args[2], args[3], args[4]
  ask.pool = args[5] ~= '' and args[5] or ALL
  ask.named, ask.model, ask.account_bound = args[6], args[7], args[8] == '1'
  ask.resolved, ask.replayed = args[9] ~= '0', args[9] == 'r'
  ask.hint, ask.draw = args[10] ~= '' and args[10] or nil, tonumber(args[11])
  ask.head, ask.lease, ask.now, ask.previous = args[12], args[13], args[14], args[15]
  ask.account, ask.session, ask.home = nil, nil, nil
  local first, count = 17, tonumber(args[16])
  ask.bound = count
  if isolated then
    ask.tenant, ask.strict, ask.kinds, first = args[17], args[18] == '1', args[19], 20
    if #ask.kinds > count then count = #ask.kinds end
  end
  ask.count, ask.tried = count, NOTHING
  if #args >= first + count then
    ask.tried = {}
    for i = first + count, #args do ask.tried[args[i]] = true end
  end
  return ask, catalogue(remembered(ask, args, first))
end

-- Returns the reply to a request that no resource could ever serve, or nil.
local function senseless(known, ask)
  if not known then return { 'no_catalogue' } end
  if #known.list == 0 then return { 'no_resources' } end
  if not known.rankings[ask.pool] then
    local reply = { 'unknown_pool' }
    for _, pool in ipairs(known.pools) do reply[#reply + 1] = pool end
    return reply
  end
end

-- Takes the lease and updates the resource's rank.
local function place(known, ask, resource, how, value)
  local added = take_lease(known, ask, resource)
  if how == 'free' then
    -- `value`, the rank, was (in flight + 1) / weight.
    rank(resource, rank_of(resource, math.floor(value * resource.weight + 0.5) - 1 + added))
  elseif how == 'trial' then
    local trial = redis.call('ZSCORE', known.rankings[ALL], resource.id)
    begin_trial(ask, resource, tonumber(trial))
  else
    reweigh(known, resource.id)  -- the cooldown may be that of this model alone
  end
end

-- rpx_acquire_v2  ARGV: see read_ask.
-- Returns 'resource|reason|version|is it a half-open trial 0|1|event' (one string: a
-- table costs more than a Redis call), or
--   {'look_up', age in ms of this Redis's content}: ids are unknown here and SQL was not
--     asked yet; nothing was done,
--   {'unknown_pool', pool...}, {'no_catalogue'}, {'no_resources'},
--   {'no_capacity'|'owner_limited', ms to wait, event}, {'owner_gone', 0, event},
--   {'foreign_id'|'unknown_id', which id, event}.
-- `event` is the decision event as JSON: the gateway keeps it until SQL has it, because
-- Redis may lose the stream.
-- Idempotent: a repeated call moves the request's lease, so it never holds two.
local function acquire(keys, args, isolated)
  local ask, known = read_ask(args, isolated)
  local wrong = senseless(known, ask)
  if wrong then return wrong end
  ask.view = survey(known.rankings[ask.pool])
  local id, reason, how, value
  if isolated and ask.count > 0 then
    reason, value = foreign_id(ask)
    if not reason and value then return { 'look_up', age() } end
  end
  local foreign = reason and tostring(value)
  if not foreign then id, reason, how, value = choose(known, ask) end
  if reason == 'look_up' then return { reason, age() } end
  local event = decision_json(known, ask, id, reason)
  emit(keys[2], 'decision', ask.decision, event)
  if foreign then return { reason, foreign, event } end
  if not id then
    local wait = value and math.max(value - clock(ask.now), 0) or 0
    return { reason, string.format('%.0f', wait), event }
  end
  place(known, ask, known.by_id[id], how, value)
  return id .. '|' .. reason .. '|' .. known.version .. (how == 'trial' and '|1|' or '|0|')
    .. event
end

-- rpx_acquire_v1  For gateways of a version before tenants: does not check ids.
local function acquire_for_anybody(keys, args)
  return acquire(keys, args, false)
end

local function acquire_for_tenant(keys, args)
  return acquire(keys, args, true)
end

-- rpx_explain_v1  ARGV: see read_ask.  The same choice without effects. Returns {status,
-- resource or '', reason, is it a trial 0|1, ms to wait, all candidates as JSON}, or as
-- rpx_acquire_v2 'look_up' and the replies without an event.
local function explain(_, args)
  local ask, known = read_ask(args)
  local wrong = senseless(known, ask)
  if wrong then return wrong end
  ask.view = survey(known.rankings[ask.pool])
  local id, reason, how, until_ms = choose(known, ask)
  if reason == 'look_up' then return { reason, age() } end
  local wait = 0
  if until_ms and how ~= 'free' then wait = math.max(until_ms - clock(ask.now), 0) end
  local rows = candidates(known, ask, survey(known.rankings[ask.pool], true), id)
  return {
    id and 'ok' or reason, id or '', reason, how == 'trial' and 1 or 0,
    string.format('%.0f', wait), '[' .. rows .. ']',
  }
end

-- rpx_pin_v2  ARGV: gateway, request, attempt, decision id, resource, head of the
--   decision event or '' when it was emitted already, head of the lease record, the
--   resource that holds this request's lease or ''; then as refused_ids (rpx_pin_v1,
--   for gateways of a version before tenants, ends before these).
-- Takes a lease for a request on a WebSocket, which stays on the socket's resource
-- whatever its load and health. Returns the catalogue's version, or {'no_catalogue'}, or
-- {'owner_gone'} when the resource is not in it, or as rpx_acquire_v2 does
-- {'foreign_id'|'unknown_id', which id} or {'look_up', age}.
local function pin(keys, args)
  local known = current()
  if not known then return { 'no_catalogue' } end
  local resource = known.by_id[args[5]]
  if not resource then return { 'owner_gone' } end
  local refused = refused_ids(args, 9)
  if refused then return refused end
  local ask = {
    gateway = args[1], request = args[2], attempt = args[3], previous = args[8],
    lease = args[7],
  }
  if args[6] ~= '' then
    emit(keys[2], 'decision', args[4], string.format(
      '%s,"resource_id":"%s","reason":"socket","candidates":[]}', args[6], resource.id))
  end
  take_lease(known, ask, resource)
  reweigh(known, resource.id)
  return known.version
end
