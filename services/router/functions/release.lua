-- Release: applies how an attempt ended, and ends the request.
--
-- Keys read:    catalogue:version, catalogue, pauses:<model>, limits:<model>,
--               health:<res>, leases:<res>, retired
-- Keys written: leases:<res>, ranking:<pool>, retired, health:<res>, unproven, pauses,
--               pauses:<model>, limits, limits:<model>, session:<digest>, sessions,
--               bound:<digest>, the telemetry stream

local SAID = {}  -- reused by each call: a new table costs more

-- ARGV of release_v3:
--    1-3  gateway, request, resource or ''
--    4-6  verdict: kind or '', cause, cooldown ms
--    7,8  latency ms or '', now
--    9-11 session digest or '', session ttl ms, id ttl ms
--   12,13 model digest or '', model name
--   14    request event (JSON) or ''
--   15    tenant or ''; not in release_v1
--   16,17 only in release_v3: 'account' when the limit that ended the attempt is the
--         account's, else ''; limits of the account as learn_limits reads them, or ''
--   then the digests of the ids that the response minted
local function read_release(keys, args)
  local said = SAID
  said.stream, said.gateway, said.by, said.resource = keys[2], args[1], args[2], args[3]
  said.kind, said.cause, said.cooldown_ms = args[4], args[5], tonumber(args[6])
  said.latency_ms, said.clock, said.now = args[7], args[8], false
  said.session, said.session_ttl, said.id_ttl = args[9], args[10], args[11]
  said.model, said.model_name, said.event = args[12], args[13], args[14]
  said.of_account = false
  return said
end

-- Sets and returns said.now. Most reports need no time, and TIME is a Redis call.
local function time_of(said)
  local now = said.now or clock(said.clock)
  said.now = now
  return now
end

-- Returns the catalogue, and of the request's model its cooldowns and, if the upstream
-- told limits, what is known of them (packed).
local function release_state(said, told)
  if said.model == '' then return current() end
  local pauses, found = TAG .. 'pauses:' .. said.model, nil
  if told then
    found = call('MGET', VERSION, pauses, TAG .. 'limits:' .. said.model)
  else
    found = call('MGET', VERSION, pauses)
  end
  return catalogue(found[1]), read_cooldowns(found[2]), found[3]
end

-- Stores who holds the session and the minted ids. A session needs a success; minted ids
-- are facts however the request ended.
local function remember(said, resource, args, tenant, first)
  local owner = tenant and resource.owner .. '|' .. tenant or resource.owner
  if said.session ~= '' and said.kind == 'ok' then
    local ends = time_of(said) + tonumber(said.session_ttl)
    call('SET', TAG .. 'session:' .. said.session, owner, 'PX', said.session_ttl)
    call('ZADD', TAG .. 'sessions', ends, said.session)
  end
  for i = first, #args do learn(args[i], owner, tenant, said.id_ttl) end
  written = written + #args - first + 2
  if written >= LOOK_EVERY then make_room(time_of(said)) end
end

local function tally(said, resource, health)
  local fields = { 'requests', health.requests + 1 }
  if said.latency_ms ~= '' then
    fields[3], fields[4] = 'latency_ms', said.latency_ms
  end
  if said.kind ~= 'ok' and said.kind ~= 'neutral' then
    fields[#fields + 1], fields[#fields + 2] = 'errors', health.errors + 1
    fields[#fields + 1], fields[#fields + 2] = 'last_error', said.cause
  end
  call('HSET', resource.health, unpack(fields))
end

-- `apply` for the usual end of a request: success on a healthy resource, so only its
-- counters change. Returns nil in the other cases.
local function count_success(said, resource)
  local h = call('HMGET', resource.health, 'state', 'failures', 'requests')
  if h[1] ~= 'healthy' or (h[2] or '0') ~= '0' then return nil end
  local requests = (h[3] or 0) + 1
  if said.latency_ms == '' then
    call('HSET', resource.health, 'requests', requests)
  else
    call('HSET', resource.health, 'requests', requests, 'latency_ms', said.latency_ms)
  end
  return 'healthy'
end

-- Applies the report of an attempt to its resource; returns the resulting state.
local function apply(said, resource, cooldowns, over)
  local ok = said.kind == 'ok'
  if ok and over and not cooldowns then
    local state = count_success(said, resource)
    if state then return state end
  end
  time_of(said)
  local health = read_health(resource)
  -- `ok` before the end says that a trial began well. Its end is counted.
  if over or not ok then tally(said, resource, health) end
  local of_model = said.model ~= '' and judge_model(said, resource, cooldowns)
  return judge(said, resource, health, of_model)
end

-- Applies that a request held a lease elsewhere than its gateway knew: it ended before
-- the reply to acquire arrived, so a trial there has not taken place.
local function apply_unknown(said, holder, cooldowns)
  said.kind = 'neutral'
  time_of(said)
  local state = judge(said, holder, read_health(holder))
  judge_model(said, holder, cooldowns)
  return state
end

-- The limit that ended an attempt is that of the account: none of its resources is tried
-- before it resets, and one of them once a second.
local function limit_account(said, known, resource)
  said.siblings = known.accounts[resource.account_id]
  if said.cooldown_ms < ASK_AGAIN_MS then said.cooldown_ms = ASK_AGAIN_MS end
end

-- release_v3  ARGV: see read_release.
-- With an event the request is over: its lease ends and the event is emitted. Without
-- one only the verdict is applied; the next acquire moves the lease, so a gateway that
-- crashes between two attempts still leaves one. No verdict kind: the attempt was
-- judged already.
-- Idempotent. Returns the stream id of the request event, or '' without one.
local function release(keys, args, tenant, first, told)
  local said = read_release(keys, args)
  said.of_account = told and args[16] == 'account'
  if told == '' then told = nil end
  local known, cooldowns, limited = release_state(said, told)
  said.known, said.siblings = known, false
  local id = said.resource
  local resource, over, state = known and known.by_id[id], said.event ~= '', nil
  if resource and told then
    learn_limits(said, resource, told, time_of(said), limited)
  end
  if resource and said.kind ~= '' then
    if said.of_account and said.model ~= '' then limit_account(said, known, resource) end
    state = apply(said, resource, cooldowns, over)
    if over then remember(said, resource, args, tenant, first) end
  end
  if not over then return '' end
  local field = field_of(said.gateway, said.by)
  local held = id ~= '' and call('HDEL', leases_of(id), field) == 1 and id
    or drop_lease(known, field)
  if held then
    local holder = known and known.by_id[held]
    if holder and held ~= id then state = apply_unknown(said, holder, cooldowns) end
    reweigh(known, held, state)
  end
  return emit(said.stream, 'request', said.by, said.event)
end

-- What a gateway gets in reply to a release that ended a request: the id of the event,
-- which it does not need, or -1 if it is the only gateway. Then its next releases may
-- come a little later, because no other gateway depends on them.
local function reply_to(gateway, entry)
  if gateway == only and beats_alone > 1 and entry ~= '' then return -1 end
  return entry
end

-- release_v1  For gateways of a version before tenants.
local function release_for_anybody(keys, args)
  return release(keys, args, nil, 15)
end

-- release_v2  For gateways of a version before limits of accounts.
local function release_for_tenant(keys, args)
  return release(keys, args, args[15], 16)
end

-- release_v4  For requests of keys with limits. Has after 17: tokens, billionths of a
-- dollar, and what `budgets.used` reads; then the digests.
local function release_counted(keys, args)
  local quota, first = budgets.used(args)
  local entry = release(keys, args, args[15], first, args[17])
  if entry ~= '' then budgets.ended(keys, args, entry, quota, args[18] + 0, args[19] + 0) end
  return reply_to(args[1], entry)
end

-- release_v5  The same for what most of them used: at 16 the id of their limits, at 17
-- tokens and cost as one number, cost * 2^20 + tokens; then the digests.
local function release_known(keys, args)
  local entry = release(keys, args, args[15], 18)
  if entry ~= '' then budgets.ended_soon(keys, args, entry) end
  return reply_to(args[1], entry)
end

local function release_with_limits(keys, args)
  return reply_to(args[1], release(keys, args, args[15], 18, args[17]))
end
