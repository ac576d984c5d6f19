-- Acquire: chooses a resource, takes a lease on it and records the decision.
--
-- Keys read:    catalogue:version, catalogue, pauses:<model>, limits:<model>, waiting,
--               session:<digest>, bound:<digest>, ranking:<pool>, unproven, born,
--               health:<res>
-- Keys written: leases:<res>, ranking:<pool>, retired, the telemetry stream; for a trial
--               also health:<res>, pauses, pauses:<model>; for an account that is near
--               its limit also limits, limits:<model>; for a request that waits those
--               of queue.lua

local FIRST_ID = 6                    -- place of the first id in the reply of `remembered`
local calls = {}                      -- the functions, of each version

-- Reused by each call: a new table costs more. What an ask does not have is false, never
-- nil: assigning nil to a field that is not there takes a place in the table, so each
-- call had to rebuild it.
local ASK = {
  first_id = FIRST_ID, gateway = false, request = false, attempt = false, decision = false,
  pool = false, named = false, model = false, account_bound = false, resolved = false,
  replayed = false, hint = false, draw = false, head = false, lease = false, now = false,
  previous = false, account = false, session = false, home = false, socket = false,
  tokens = false, at = false, roomy = false, short = false, passed_over = false,
  left_full = false, explains = false, entry = false, others = false, bound = false,
  tenant = false, strict = false, kinds = false, count = false, tried = false, most = false,
  wait_ms = false, bound_ms = false, ids = false, cooldowns = false, limits = false,
  others_wait = false, known = false, by_id = false, view = false, crowded = false,
  short_ms = false, decided = false, confined = false, chained = false, share_weight = false,
}

-- Reads with one MGET what affinity and cooldowns know. Missing keys are false.
local function remembered(ask, args, first)
  -- Without a model or a session these are keys that never exist.
  local cooldowns, limits = TAG .. 'pauses:' .. ask.model, TAG .. 'limits:' .. ask.model
  local values, count, session = nil, ask.count, nil
  -- Only a request that may wait itself lets those that do go first.
  local waits = ask.wait_ms > 0
  if ask.named ~= '' or count > 0 then session = TAG .. 'session:' .. ask.named end
  if not session then
    values = waits and call('MGET', VERSION, cooldowns, limits, queues.WAITING)
      or call('MGET', VERSION, cooldowns, limits)
  elseif count == 0 and not waits then
    values = call('MGET', VERSION, cooldowns, limits, session)
    ask.session = values[4]
  elseif count == 0 then
    values = call('MGET', VERSION, cooldowns, limits, queues.WAITING, session)
  elseif count == 1 then
    values = call('MGET', VERSION, cooldowns, limits, queues.WAITING, session,
      TAG .. 'bound:' .. args[first])
  else
    local names = { VERSION, cooldowns, limits, queues.WAITING, session }
    for i = 1, count do names[5 + i] = TAG .. 'bound:' .. args[first - 1 + i] end
    values = call('MGET', unpack(names))
  end
  ask.ids = values
  ask.cooldowns = values[2] and read_cooldowns(values[2])
  ask.limits = values[3] and limits_of(ask, values[3], values[1]) or false
  ask.others_wait = waits and values[4]
  if ask.named ~= '' and (waits or count > 0) then ask.session = values[5] end
  return values[1]
end

local function read_turn(ask, socket, letters)
  local function has(letter) return string.find(letters, letter, 1, true) ~= nil end
  ask.socket, ask.decided, ask.confined = socket ~= '' and socket, has('d'), has('s')
  ask.chained, ask.others = ask.confined or has('c'), has('o')
end

-- ARGV of acquire_v1 and explain_v1:
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
-- acquire_v2 has after 16: tenant or '', strict 0|1, and the kinds of the ids, one
-- letter each (n: clients do not invent it, r: they may) or '' when the owners of unknown
-- ids do not matter; then the digests of the bound and of further ids, and the resources.
-- acquire_v3 has after 19: the tokens that the request may take, estimated, or '' to
-- disregard limits of accounts. explain_v2 has them after 16.
-- acquire_v4 has after 20 the gateway's terms (queues.terms) or ''. explain_v3
-- has them after the tokens.
-- queue_v1 has after 21: the share that the request counts to, the share's weight,
-- ms that the request may still wait, 0 for the last call; then as pin_v4.
-- pin_v3 has after 20, pin_v4 after 21: the resource of the request's WebSocket, and letters: d (the
-- decision of its upgrade is for this request, too), c (the request continues a
-- response), s (one that only this socket's upstream remembers). So has target_v1,
-- where the resource is '' for a request without a WebSocket, and a letter may be o (its
-- model alias has other targets: it is refused rather than sent to a resource that is
-- cooling down, or whose account is at its limit).
local function read_ask(args, isolated, estimated, on_socket, bounded, queued)
  local ask = ASK
  ask.gateway, ask.request, ask.attempt, ask.decision = args[1], args[2], args[3], args[4]
  if ask.gateway ~= only then only = false end
  ask.pool = args[5] ~= '' and args[5] or ALL
  ask.named, ask.model, ask.account_bound = args[6], args[7], args[8] == '1'
  ask.resolved, ask.replayed = args[9] ~= '0', args[9] == 'r'
  ask.hint, ask.draw = args[10] ~= '' and args[10], args[11]
  ask.head, ask.lease, ask.now, ask.previous = args[12], args[13], args[14], args[15]
  ask.account, ask.session, ask.home, ask.socket = false, false, false, false
  ask.tokens, ask.at, ask.roomy, ask.short = false, false, false, false
  ask.passed_over, ask.left_full, ask.explains, ask.entry = false, false, false, false
  ask.others = false
  local first, count = 17, numbers[args[16]] or number_of(args[16])
  ask.bound = count
  if isolated then
    ask.tenant, ask.strict, ask.kinds, first = args[17], args[18] == '1', args[19], 20
    if #ask.kinds > count then count = #ask.kinds end
  end
  if estimated then ask.tokens, first = args[first] ~= '' and args[first], first + 1 end
  first = queues.read_terms(ask, args, first, bounded)
  if queued then first = queues.read_place(ask, args, first) end
  if on_socket then read_turn(ask, args[first], args[first + 1]); first = first + 2 end
  ask.count, ask.tried = count, NOTHING
  if #args >= first + count then
    ask.tried = {}
    for i = first + count, #args do ask.tried[args[i]] = true end
  end
  local known = catalogue(remembered(ask, args, first))
  ask.known, ask.by_id = known, known and known.by_id
  return ask, known
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
  take_from_limits(ask, resource)
  if how == 'free' then
    -- `value`, the rank, was (in flight + 1) / weight.
    rank(resource, rank_of(resource, math.floor(value * resource.weight + 0.5) - 1 + added))
  elseif how == 'trial' then
    local trial = call('ZSCORE', known.rankings[ALL], resource.id)
    begin_trial(ask, resource, tonumber(trial))
  else
    reweigh(known, resource.id)  -- the cooldown may be that of this model alone
  end
end

-- acquire_v4  ARGV: see read_ask.
-- Returns 'resource|reason|version|is it a half-open trial 0|1|event' (one string: a
-- table costs more than a Redis call), or
--   {'look_up', age in ms of this Redis's content}: ids are unknown here and SQL was not
--     asked yet; nothing was done,
--   {'unknown_pool', pool...}, {'no_catalogue'}, {'no_resources'},
--   {'no_capacity'|'owner_limited', ms to wait, event}, {'owner_gone', 0, event},
--   {'foreign_id'|'unknown_id', which id, event},
--   {'busy', ms to wait}: it may wait, by queue_v1; nothing was done, or
--   {'busy', ms to wait, event}: it may not.
-- `event` is the decision event as JSON: the gateway keeps it until SQL has it, because
-- Redis may lose the stream.
-- Idempotent: a repeated call moves the request's lease, so it never holds two.
local function acquire(keys, args, isolated, estimated, on_socket, bounded, queued, quota)
  local ask, known = read_ask(args, isolated, estimated, on_socket, bounded, queued)
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
  if ask.others_wait or ask.entry or reason == 'busy' then
    local waits
    waits, id, reason, how, value = queues.consider(known, ask, id, reason, how, value)
    if waits then return waits end
  end
  local event, entry = '', nil
  if ask.socket and id == ask.socket and ask.decided then
    ask.attempt = string.format('%d', ask.attempt - 1)  -- that of the upgrade goes on
  else
    event = decision_json(known, ask, id, reason)
    entry = emit(keys[2], 'decision', ask.decision, event)
  end
  if foreign then return { reason, foreign, event } end
  if not id then
    local wait = value and math.max(value - clock(ask.now), 0) or 0
    return { reason, string.format('%.0f', wait), event }
  end
  place(known, ask, known.by_id[id], how, value)
  local left = quota and budgets.begun(quota, ask, entry) or ''
  return left .. id .. '|' .. reason .. '|' .. known.version
    .. (how == 'trial' and '|1|' or '|0|') .. event
end

-- acquire_v1  For gateways of a version before tenants: does not check ids.
function calls.acquire_v1(keys, args)
  return acquire(keys, args, false)
end

-- acquire_v2  For gateways of a version before limits of accounts.
function calls.acquire_v2(keys, args)
  return acquire(keys, args, true)
end

-- acquire_v3  For gateways of a version before requests that wait.
function calls.acquire_v3(keys, args)
  return acquire(keys, args, true, true)
end

function calls.acquire_v4(keys, args)
  return acquire(keys, args, true, true, false, true)
end

-- queue_v1  ARGV: see read_ask.  Acquire for a request that was told that it may
-- wait. Returns as acquire_v4 does, or {'queued', class}: it has its place among
-- the requests of that class, and turns_v1 says when to ask again. {'busy', ms,
-- event}: too many wait, or this was the last call.
function calls.queue_v1(keys, args)
  return acquire(keys, args, true, true, true, true, true)
end

-- explain_v3  ARGV: see read_ask.  The same choice without effects. Returns {status,
-- resource or '', reason, is it a trial 0|1, ms to wait, all candidates as JSON}, or as
-- acquire_v4 'look_up' and the replies without an event.
function calls.explain_v3(_, args, unlimited, unbounded)
  local ask, known = read_ask(args, false, not unlimited, false, not unbounded)
  local wrong = senseless(known, ask)
  if wrong then return wrong end
  ask.view = survey(known.rankings[ask.pool])
  local id, reason, how, until_ms = choose(known, ask)
  if reason == 'look_up' then return { reason, age() } end
  if how == 'free' and ask.others_wait
      and not queues.in_turn(known, ask, queues.class_of(known, ask), clock(ask.now)) then
    id, reason, how, until_ms = nil, 'busy', nil, nil
  end
  local wait = 0
  ask.explains = true
  if until_ms and how ~= 'free' then wait = math.max(until_ms - clock(ask.now), 0) end
  local rows = candidates(known, ask, survey(known.rankings[ask.pool], true), id)
  return {
    id and 'ok' or reason, id or '', reason, how == 'trial' and 1 or 0,
    string.format('%.0f', wait), '[' .. rows .. ']',
  }
end

-- explain_v1  For routers of a version before limits of accounts.
function calls.explain_v1(_, args)
  return calls.explain_v3(_, args, true, true)
end

-- explain_v2  For routers of a version before requests that wait.
function calls.explain_v2(_, args)
  return calls.explain_v3(_, args, false, true)
end

-- pin_v4  ARGV: see read_ask.  Acquire for a request on a WebSocket: on the socket's
-- resource as long as it can serve. Returns as acquire_v4 does; the event is empty
-- when the upgrade's decision is that of the request.
-- target_v1  The same for a target of a model alias that has others.
function calls.pin_v4(keys, args)
  return acquire(keys, args, true, true, true, true)
end

-- acquire_v5, queue_v2, pin_v5, target_v2  The same for requests of keys
-- with limits, which `budgets.admit` reads. The reply of a
-- request with a lease begins with what `budgets.begun` returns.
function calls.acquire_v5(keys, args)
  local quota, refusal = budgets.admit(keys, args)
  return refusal or acquire(keys, args, true, true, false, true, false, quota)
end

function calls.queue_v2(keys, args)
  local quota, refusal = budgets.admit(keys, args)
  return refusal or acquire(keys, args, true, true, true, true, true, quota)
end

function calls.pin_v5(keys, args)
  local quota, refusal = budgets.admit(keys, args)
  return refusal or acquire(keys, args, true, true, true, true, false, quota)
end

-- pin_v3  For gateways of a version before requests that wait.
function calls.pin_v3(keys, args)
  return acquire(keys, args, true, true, true)
end

-- pin_v2  ARGV: gateway, request, attempt, decision id, resource, head of the
--   decision event or '' when it was emitted already, head of the lease record, the
--   resource that holds this request's lease or ''; then as refused_ids (pin_v1,
--   for gateways of a version before tenants, ends before these).
-- For gateways of a version that keeps a request of a WebSocket on the socket's resource
-- whatever its health. Returns the catalogue's version, or {'no_catalogue'}, or
-- {'owner_gone'} when the resource is not in it, or as acquire_v2 does
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
