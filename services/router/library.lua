#!lua name=rpx

-- The routing functions: the only code that changes leases, affinity, health
-- and the indexes that derive from them. One call, one atomic step over all
-- gateways. Loading replaces the whole library under running gateways, so a
-- changed signature becomes _v2 and the old one stays for a release.
--
-- Keys (names in libs/common/keys.py; all share the hash tag {rpx}):
--   catalogue, catalogue:version   the catalogue's JSON and its content hash
--   load:<pool>      zset  available resource -> (in flight + 1) / weight
--   cooling:<pool>   zset  unavailable resource -> ms when it may be tried
--   leases:<res>     zset  request -> ms of acquire; its size IS "in flight"
--   gateway:<gw>     hash  request -> lease record (JSON of the request so far)
--   gateways         zset  gateway -> ms of last heartbeat
--   health:<res>     hash  state, until, cause, failures, pauses, trial, ...
--   session:<digest> string "resource|account" a session is bound to
--   sessions         zset  session digest -> ms of its binding's expiry
--   bound:<digest>   string "resource|account" that minted an upstream id
--   unproven         set   available resources that no answer has proven yet
-- The pool "*" holds every resource: it serves requests that name no pool, and
-- being in load:* is what "available" means.
--
-- KEYS of every function: 1 catalogue:version, 2 the telemetry stream. Further
-- names are built from the tag, which keeps them in the same slot.
-- `now` arguments are '' for the server's clock (skewed gateways cannot bend
-- it); tests pass a number.

local TAG = '{rpx}:'
local ALL = '*'
local NEVER = 9e15         -- "until" of a key that was refused
local FAULTS_IN_A_ROW = 3  -- so many open the circuit
local PAUSE_CAP = 16       -- repeated failure doubles the pause up to so many times
local TRIAL_MS = 30000     -- a half-open trial that never reports is over by then
local MOST_SHOWN = 16      -- candidates a decision records, of either kind

-- The parsed catalogue, kept between calls. Its version is a hash of its
-- content and is compared at each call, so an old copy is never used.
local cached = { version = false }

local function clock(now)
  if now ~= '' then return tonumber(now) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function index(document, version)
  local parsed = cjson.decode(document)
  local known = { version = version, list = parsed.resources, by_id = {}, pools = {}, accounts = {} }
  known.pools[ALL] = true
  for _, resource in ipairs(parsed.resources) do
    if resource.pool_id == cjson.null then resource.pool_id = nil end
    known.by_id[resource.id] = resource
    if resource.pool_id then known.pools[resource.pool_id] = true end
    local siblings = known.accounts[resource.account_id] or {}
    siblings[#siblings + 1] = resource.id
    known.accounts[resource.account_id] = siblings
  end
  return known
end

local function catalogue()
  local version = redis.call('GET', TAG .. 'catalogue:version')
  if not version then return nil end
  if cached.version ~= version then
    local document = redis.call('GET', TAG .. 'catalogue')
    if not document then return nil end
    cached = index(document, version)
  end
  return cached
end

-- Pools whose indexes hold a resource.
local function pools_of(resource)
  if resource.pool_id then return { ALL, resource.pool_id } end
  return { ALL }
end

local function score(resource)
  return (redis.call('ZCARD', TAG .. 'leases:' .. resource.id) + 1) / resource.weight
end

-- After its leases changed: derive an available resource's load anew.
local function reweigh(resource)
  local load = score(resource)
  for _, pool in ipairs(pools_of(resource)) do
    redis.call('ZADD', TAG .. 'load:' .. pool, 'XX', load, resource.id)
  end
end

local function make_available(resource)
  local load = score(resource)
  for _, pool in ipairs(pools_of(resource)) do
    redis.call('ZREM', TAG .. 'cooling:' .. pool, resource.id)
    redis.call('ZADD', TAG .. 'load:' .. pool, load, resource.id)
  end
end

local function make_unavailable(resource, until_ms)
  for _, pool in ipairs(pools_of(resource)) do
    redis.call('ZREM', TAG .. 'load:' .. pool, resource.id)
    redis.call('ZADD', TAG .. 'cooling:' .. pool, until_ms, resource.id)
  end
end

local function available(id)
  return redis.call('ZSCORE', TAG .. 'load:' .. ALL, id) ~= false
end

local function emit(stream, kind, id, data)
  redis.call('XADD', stream, '*', 'kind', kind, 'id', id, 'v', '1', 'data', data)
end

-- Health ---------------------------------------------------------------------

local function transition(stream, now, resource, before, after, cause, until_ms)
  if before == after then return end
  local event = {
    created_at_ms = now, resource_id = resource.id, before = before, after = after,
    cause = cause, cooldown_until_ms = cjson.null,
  }
  if until_ms and until_ms < NEVER then event.cooldown_until_ms = until_ms end
  emit(stream, 'health', string.format('%013d-%s-%s', now, resource.id, after), cjson.encode(event))
end

local function pause(stream, now, resource, before, health, cooldown_ms, cause)
  -- Failing again after a pause doubles the next one; failing during it (answers
  -- still under way, checks, panic) does not.
  local during = health.until_ms > now
  local factor = during and 1 or math.min(2 ^ health.pauses, PAUSE_CAP)
  local pauses = during and health.pauses or health.pauses + 1
  -- Deadlines merge by max: a shorter pause never ends a longer one early.
  local until_ms = math.max(health.until_ms, now + cooldown_ms * factor)
  redis.call('HSET', TAG .. 'health:' .. resource.id, 'state', 'degraded', 'until', until_ms,
    'cause', cause, 'failures', 0, 'pauses', pauses, 'trial', '')
  make_unavailable(resource, until_ms)
  transition(stream, now, resource, before, 'degraded', cause, until_ms)
  return 'degraded'
end

local function recover(stream, now, resource, before)
  redis.call('HSET', TAG .. 'health:' .. resource.id, 'state', 'healthy', 'until', 0,
    'failures', 0, 'pauses', 0, 'trial', '')
  redis.call('SREM', TAG .. 'unproven', resource.id)
  make_available(resource)
  transition(stream, now, resource, before, 'healthy', 'ok', nil)
  return 'healthy'
end

local function read_health(resource)
  local h = redis.call('HMGET', TAG .. 'health:' .. resource.id,
    'state', 'until', 'failures', 'pauses', 'trial')
  return {
    state = h[1] or 'unknown', until_ms = tonumber(h[2] or 0),
    failures = tonumber(h[3] or 0), pauses = tonumber(h[4] or 0), trial = h[5] or '',
  }
end

-- verdict: kind, cause, cooldown_ms; by: request id of the answer, or 'probe'.
-- Returns the state that results.
local function judge(stream, now, resource, verdict, by)
  local health = read_health(resource)
  local before, on_trial = health.state, health.trial ~= '' and health.trial == by
  if verdict.kind == 'ok' then
    if before == 'healthy' and health.failures == 0 then return before end
    -- A refused key needs a probe; a pause that still runs is not cut short by
    -- an answer that was under way before it began.
    if before == 'unhealthy' and by ~= 'probe' then return before end
    if before == 'degraded' and health.until_ms > now and not on_trial then return before end
    return recover(stream, now, resource, before)
  elseif verdict.kind == 'refused' then
    redis.call('HSET', TAG .. 'health:' .. resource.id, 'state', 'unhealthy', 'until', NEVER,
      'cause', verdict.cause, 'trial', '')
    make_unavailable(resource, NEVER)
    transition(stream, now, resource, before, 'unhealthy', verdict.cause, NEVER)
    return 'unhealthy'
  elseif before == 'unhealthy' then
    return before
  elseif verdict.kind == 'limited' then
    return pause(stream, now, resource, before, health, verdict.cooldown_ms, verdict.cause)
  elseif verdict.kind == 'fault' then
    if on_trial or health.failures + 1 >= FAULTS_IN_A_ROW then
      return pause(stream, now, resource, before, health, verdict.cooldown_ms, verdict.cause)
    end
    redis.call('HSET', TAG .. 'health:' .. resource.id, 'failures', health.failures + 1)
  elseif on_trial then
    -- The trial said nothing (the client left, or asked nonsense): next, please.
    redis.call('HSET', TAG .. 'health:' .. resource.id, 'trial', '')
    make_unavailable(resource, now)
  end
  return before
end

-- Choice ---------------------------------------------------------------------

local function among(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then return true end
  end
  return false
end

-- Least (in flight + 1) / weight of a pool; ties fall to `draw`.
local function least_loaded(pool, tried, draw)
  local key = TAG .. 'load:' .. pool
  if #tried > 0 then
    local tied, lowest = {}, nil
    local ranked = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #ranked, 2 do
      if lowest and ranked[i + 1] ~= lowest then break end
      if not among(tried, ranked[i]) then
        lowest = ranked[i + 1]
        tied[#tied + 1] = ranked[i]
      end
    end
    return tied[draw % math.max(#tied, 1) + 1]
  end
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if #first == 0 then return nil end
  local ties = redis.call('ZCOUNT', key, first[2], first[2])
  if ties == 1 then return first[1] end
  local offset = draw % ties
  return redis.call('ZRANGE', key, offset, offset)[1]
end

-- Half open: a resource of the pool whose pause is over gets one request.
local function due_for_trial(pool, tried, now)
  local due = redis.call('ZRANGEBYSCORE', TAG .. 'cooling:' .. pool, '-inf', now, 'LIMIT', 0, 4)
  for _, id in ipairs(due) do
    if not among(tried, id) then return id end
  end
end

local function soonest(pool, tried)
  local cooling = redis.call('ZRANGE', TAG .. 'cooling:' .. pool, 0, -1, 'WITHSCORES')
  for i = 1, #cooling, 2 do
    local until_ms = tonumber(cooling[i + 1])
    if until_ms < NEVER and not among(tried, cooling[i]) then return cooling[i], until_ms end
  end
end

-- No key of the account is available: the one that is back first decides. The
-- owner comes first among equals.
local function by_condition(known, owner, account, ask)
  local first, soonest_ms, tried_any
  for _, id in ipairs(known.accounts[account] or {}) do
    local until_ms = tonumber(redis.call('ZSCORE', TAG .. 'cooling:' .. ALL, id) or NEVER)
    if among(ask.tried, id) then
      tried_any = true
    elseif until_ms < NEVER and (not first or until_ms < soonest_ms or
        (until_ms == soonest_ms and id == owner)) then
      first, soonest_ms = id, until_ms
    end
  end
  if not first then return nil, tried_any and 'no_capacity' or 'owner_gone' end
  if soonest_ms <= ask.now then return first, 'response_affinity', nil, true end
  local cause = redis.call('HGET', TAG .. 'health:' .. first, 'cause')
  if cause and string.sub(cause, 1, 3) == '429' then
    return nil, 'owner_limited', soonest_ms
  end
  return first, 'response_affinity'  -- failing, yet the only one: try it anyway
end

-- Where state of `account` can be read: its owner, else a sibling, else the
-- owner's own condition decides (design.md section 3).
local function by_account(known, owner, account, ask)
  local resource = known.by_id[owner]
  if resource and available(owner) and not among(ask.tried, owner) then
    return owner, 'response_affinity'
  end
  local best, lowest
  for _, id in ipairs(known.accounts[account] or {}) do
    local load = not among(ask.tried, id) and redis.call('ZSCORE', TAG .. 'load:' .. ALL, id)
    if load and (not lowest or tonumber(load) < lowest) then
      best, lowest = id, tonumber(load)
    end
  end
  if best then return best, 'response_affinity' end
  return by_condition(known, resource and owner, account, ask)
end

local function by_load(ask, pool, reason)
  local trial = due_for_trial(pool, ask.tried, ask.now)
  if trial then return trial, reason, nil, true end
  local id = least_loaded(pool, ask.tried, ask.draw)
  if id then return id, reason end
  local first, until_ms = soonest(pool, ask.tried)
  if first then return first, 'panic' end
  return nil, 'no_capacity', until_ms
end

local function split(value)
  return string.match(value, '^([^|]*)|(.*)$')
end

-- Returns resource or nil, reason, until_ms, is it a half-open trial.
local function choose(known, ask)
  local pool = ask.pool ~= '' and ask.pool or ALL
  local names = {}
  for _, digest in ipairs(ask.bound) do names[#names + 1] = TAG .. 'bound:' .. digest end
  if ask.session ~= '' then names[#names + 1] = TAG .. 'session:' .. ask.session end
  local found = #names > 0 and redis.call('MGET', unpack(names)) or {}

  for i = 1, #ask.bound do
    if found[i] then
      local owner, account = split(found[i])
      local resource = known.by_id[owner]
      return by_account(known, owner, resource and resource.account_id or account, ask)
    end
  end

  local kept, account
  if ask.session ~= '' and found[#names] then kept, account = split(found[#names]) end
  local resource = kept and known.by_id[kept]
  if kept and ask.account_bound then
    return by_account(known, kept, resource and resource.account_id or account, ask)
  end
  if resource and (pool == ALL or resource.pool_id == pool) then
    if available(kept) and not among(ask.tried, kept) then return kept, 'session_affinity' end
  end
  return by_load(ask, pool, kept and 'session_failover' or 'weighted_least_connections')
end

-- What the choice was made from, as JSON, best first: the eligible with their
-- load, then the refused with why.
local function candidates_json(known, ask)
  local pool = ask.pool ~= '' and ask.pool or ALL
  local out = {}
  local unproven = redis.call('SMEMBERS', TAG .. 'unproven')
  local ranked = redis.call('ZRANGE', TAG .. 'load:' .. pool, 0, MOST_SHOWN - 1, 'WITHSCORES')
  for i = 1, #ranked, 2 do
    local resource = known.by_id[ranked[i]]
    local load = tonumber(ranked[i + 1])
    local refused = among(ask.tried, ranked[i]) and '"already tried"' or 'null'
    out[#out + 1] = string.format(
      '{"resource":"%s","score":%.6g,"in_flight":%d,"weight":%.6g,"health":"%s","refused":%s}',
      ranked[i], load, math.floor(load * resource.weight - 0.5), resource.weight,
      among(unproven, ranked[i]) and 'unknown' or 'healthy', refused)
  end
  local cooling = redis.call('ZRANGE', TAG .. 'cooling:' .. pool, 0, MOST_SHOWN - 1, 'WITHSCORES')
  for i = 1, #cooling, 2 do
    local until_ms = tonumber(cooling[i + 1])
    local state = until_ms < NEVER and 'degraded' or 'unhealthy'
    local why = until_ms < NEVER and string.format('cooling down until %.0f', until_ms)
      or 'key refused by the upstream'
    out[#out + 1] = string.format('{"resource":"%s","health":"%s","refused":"%s"}',
      cooling[i], state, why)
  end
  return '[' .. table.concat(out, ',') .. ']'
end

-- Leases ---------------------------------------------------------------------

local function drop_lease(known, resource_id, request_id)
  if redis.call('ZREM', TAG .. 'leases:' .. resource_id, request_id) == 0 then return end
  local resource = known and known.by_id[resource_id]
  if resource then reweigh(resource) end
end

local function lease_of(gateway, request_id)
  local record = redis.call('HGET', TAG .. 'gateway:' .. gateway, request_id)
  return record and string.match(record, '"resource_id":"([^"]*)"') or nil
end

local function take_lease(ask, resource, known)
  if ask.attempt > 1 then
    local previous = lease_of(ask.gateway, ask.request)
    if previous then drop_lease(known, previous, ask.request) end
  end
  redis.call('ZADD', TAG .. 'leases:' .. resource.id, ask.now, ask.request)
  redis.call('HSET', TAG .. 'gateway:' .. ask.gateway, ask.request, string.format(
    '%s,"attempts":%d,"resource_id":"%s","account_id":"%s"}',
    ask.lease, ask.attempt, resource.id, resource.account_id))
  -- So that the reaper knows of a gateway it reaped while that was only paused.
  redis.call('ZADD', TAG .. 'gateways', 'NX', ask.now, ask.gateway)
  reweigh(resource)
end

local function read_ask(args)
  local ask = {
    gateway = args[1], request = args[2], attempt = tonumber(args[3]), decision = args[4],
    pool = args[5], session = args[6], account_bound = args[7] == '1',
    draw = tonumber(args[8]), head = args[9], lease = args[10], now = clock(args[11]),
    bound = {}, tried = {},
  }
  local bound = tonumber(args[12])
  for i = 13, 12 + bound do ask.bound[#ask.bound + 1] = args[i] end
  for i = 13 + bound, #args do ask.tried[#ask.tried + 1] = args[i] end
  return ask
end

-- rpx_acquire_v1  ARGV: gateway, request, attempt, decision id, pool or '',
--   session digest or '', account bound 0|1, draw, head of the decision event
--   and head of the lease record (JSON objects without their closing brace),
--   now, number of bound digests, those digests, resources tried already.
-- Returns {'ok', resource, reason, version, is it a half-open trial 0|1}, or
--   {'unknown_pool', pool...}, {'no_catalogue'}, {'no_resources'},
--   {'no_capacity'|'owner_limited', ms to wait}, {'owner_gone', 0}.
-- Safe to repeat: the same request moves its lease, it never holds two.
local function acquire(keys, args)
  local known = catalogue()
  if not known then return { 'no_catalogue' } end
  local ask = read_ask(args)
  if #known.list == 0 then return { 'no_resources' } end
  if ask.pool ~= '' and not known.pools[ask.pool] then
    local reply = { 'unknown_pool' }
    for pool in pairs(known.pools) do
      if pool ~= ALL then reply[#reply + 1] = pool end
    end
    return reply
  end

  local id, reason, until_ms, is_trial = choose(known, ask)
  local resource = id and known.by_id[id]
  local event = string.format('%s,"created_at_ms":%.0f,"resource_id":%s,"reason":"%s","candidates":%s}',
    ask.head, ask.now, resource and '"' .. id .. '"' or 'null', reason, candidates_json(known, ask))
  emit(keys[2], 'decision', ask.decision, event)
  if not resource then
    local wait = until_ms and math.max(until_ms - ask.now, 0) or 0
    return { reason, string.format('%.0f', wait) }
  end
  if is_trial then
    redis.call('HSET', TAG .. 'health:' .. id, 'trial', ask.request)
    make_unavailable(resource, ask.now + TRIAL_MS)
  end
  take_lease(ask, resource, known)
  return { 'ok', id, reason, known.version, is_trial and 1 or 0 }
end

-- A session is bound by success only; that an account minted an id is a fact
-- however the request ended.
local function remember(args, now, resource)
  local kind, session, session_ttl, id_ttl = args[4], args[9], tonumber(args[10]), tonumber(args[11])
  local owner = resource.id .. '|' .. resource.account_id
  if session ~= '' and kind == 'ok' then
    redis.call('SET', TAG .. 'session:' .. session, owner, 'PX', session_ttl)
    redis.call('ZADD', TAG .. 'sessions', now + session_ttl, session)
  end
  for i = 14, #args do
    redis.call('SET', TAG .. 'bound:' .. args[i], owner, 'PX', id_ttl)
  end
end

local function tally(resource, verdict, latency_ms)
  local key = TAG .. 'health:' .. resource.id
  redis.call('HINCRBY', key, 'requests', 1)
  if latency_ms ~= '' then redis.call('HSET', key, 'latency_ms', latency_ms) end
  if verdict.kind ~= 'ok' and verdict.kind ~= 'neutral' then
    redis.call('HINCRBY', key, 'errors', 1)
    redis.call('HSET', key, 'last_error', verdict.cause)
  end
end

-- rpx_release_v1  ARGV: gateway, request, resource or '', verdict kind, cause,
--   cooldown ms, latency ms or '', now, session digest or '', session ttl ms,
--   id ttl ms, request event id, request event JSON or '', learned digests.
-- With an event the request is over: its lease goes and the event is written.
-- Without one only the verdict counts; the next acquire moves the lease, so
-- that a gateway dying between two attempts still leaves a trace.
-- Safe to repeat. Returns 1 when a lease was dropped.
local function release(keys, args)
  local known = catalogue()
  local gateway, request, now = args[1], args[2], clock(args[8])
  local verdict = { kind = args[4], cause = args[5], cooldown_ms = tonumber(args[6]) }
  local resource = known and known.by_id[args[3]]
  local over = args[13] ~= ''
  if resource then
    -- `ok` before the end is a trial's good beginning; its end is counted.
    if over or verdict.kind ~= 'ok' then tally(resource, verdict, args[7]) end
    judge(keys[2], now, resource, verdict, request)
    if over then remember(args, now, resource) end
  end
  if not over then return 0 end
  local held = lease_of(gateway, request)
  if held and not resource and known and known.by_id[held] then
    -- Left before it was known where it went: a trial has not taken place.
    judge(keys[2], now, known.by_id[held], { kind = 'neutral' }, request)
  end
  if held then
    redis.call('HDEL', TAG .. 'gateway:' .. gateway, request)
    drop_lease(known, held, request)
  end
  emit(keys[2], 'request', args[12], args[13])
  return held and 1 or 0
end

-- rpx_heartbeat_v1  ARGV: gateway, now.  Returns the catalogue's version or false.
local function heartbeat(_, args)
  redis.call('ZADD', TAG .. 'gateways', clock(args[2]), args[1])
  return redis.call('GET', TAG .. 'catalogue:version')
end

-- rpx_abandon_v1  ARGV: gateway, requests.  Drops leases the gateway no longer
-- knows (an acquire whose answer was lost). Returns how many.
local function abandon(_, args)
  local known, dropped = catalogue(), 0
  for i = 2, #args do
    local held = lease_of(args[1], args[i])
    if held then
      redis.call('HDEL', TAG .. 'gateway:' .. args[1], args[i])
      drop_lease(known, held, args[i])
      dropped = dropped + 1
    end
  end
  return dropped
end

-- rpx_reap_v1  ARGV: silent ms, now.  Ends the leases of gateways that have
-- not been heard of for that long; one `interrupted` request event each.
-- Returns how many leases ended.
local function reap(keys, args)
  local known, now = catalogue(), clock(args[2])
  local reaped = 0
  local silent = redis.call('ZRANGEBYSCORE', TAG .. 'gateways', '-inf', now - tonumber(args[1]))
  for _, gateway in ipairs(silent) do
    local held = redis.call('HGETALL', TAG .. 'gateway:' .. gateway)
    for i = 1, #held, 2 do
      local request, record = held[i], held[i + 1]
      drop_lease(known, string.match(record, '"resource_id":"([^"]*)"'), request)
      emit(keys[2], 'request', request, string.format(
        '%s,"completed_at_ms":%.0f,"outcome":"interrupted","error_code":"gateway_lost",'
        .. '"error_message":"The gateway that served this request stopped answering."}',
        string.sub(record, 1, -2), now))
      reaped = reaped + 1
    end
    redis.call('DEL', TAG .. 'gateway:' .. gateway)
    redis.call('ZREM', TAG .. 'gateways', gateway)
  end
  redis.call('ZREMRANGEBYSCORE', TAG .. 'sessions', '-inf', now)
  return reaped
end

-- rpx_verdict_v1  ARGV: resource, kind, cause, cooldown ms, latency ms or '', now.
-- A health check's finding. Returns {state before, state after}, or {} when
-- the resource is unknown.
local function verdict(keys, args)
  local known = catalogue()
  local resource = known and known.by_id[args[1]]
  if not resource then return {} end
  local before, now = read_health(resource).state, clock(args[6])
  local found = { kind = args[2], cause = args[3], cooldown_ms = tonumber(args[4]) }
  local after = judge(keys[2], now, resource, found, 'probe')
  local key = TAG .. 'health:' .. resource.id
  redis.call('HSET', key, 'checked_at', now)
  if args[5] ~= '' then redis.call('HSET', key, 'latency_ms', args[5]) end
  if found.kind ~= 'ok' and found.kind ~= 'neutral' then
    redis.call('HSET', key, 'last_error', found.cause)
  end
  return { before, after }
end

-- rpx_publish_v1  ARGV: version, catalogue JSON, event id, registry event JSON.
-- Returns 1, or 0 when that version was there already.
local function publish(keys, args)
  local before = catalogue()
  if before and before.version == args[1] then return 0 end
  local after = index(args[2], args[1])
  for pool in pairs(before and before.pools or {}) do
    redis.call('DEL', TAG .. 'load:' .. pool, TAG .. 'cooling:' .. pool)
  end
  for _, old in ipairs(before and before.list or {}) do
    local new = after.by_id[old.id]
    -- A new key or address starts with a clean record.
    if not new or new.credential ~= old.credential or new.base_url ~= old.base_url then
      redis.call('DEL', TAG .. 'health:' .. old.id)
    end
  end
  redis.call('DEL', TAG .. 'unproven')
  redis.call('SET', TAG .. 'catalogue', args[2])
  redis.call('SET', TAG .. 'catalogue:version', args[1])
  for _, resource in ipairs(after.list) do
    local health = read_health(resource)
    if health.state == 'degraded' or health.state == 'unhealthy' then
      make_unavailable(resource, health.until_ms)
    else
      if health.state == 'unknown' then redis.call('SADD', TAG .. 'unproven', resource.id) end
      make_available(resource)
    end
  end
  emit(keys[2], 'registry', args[3], args[4])
  return 1
end

-- rpx_states_v1  Returns JSON: for each resource its health hash and in flight.
local function states()
  local known = catalogue()
  if not known then return { 'no_catalogue' } end
  local out = {}
  for _, resource in ipairs(known.list) do
    local fields = redis.call('HGETALL', TAG .. 'health:' .. resource.id)
    local row = { id = resource.id, in_flight = redis.call('ZCARD', TAG .. 'leases:' .. resource.id) }
    for i = 1, #fields, 2 do row[fields[i]] = fields[i + 1] end
    out[#out + 1] = row
  end
  if #out == 0 then return { 'ok', '[]' } end
  return { 'ok', cjson.encode(out) }
end

redis.register_function('rpx_acquire_v1', acquire)
redis.register_function('rpx_release_v1', release)
redis.register_function('rpx_heartbeat_v1', heartbeat)
redis.register_function('rpx_abandon_v1', abandon)
redis.register_function('rpx_reap_v1', reap)
redis.register_function('rpx_verdict_v1', verdict)
redis.register_function('rpx_publish_v1', publish)
redis.register_function('rpx_states_v1', states)
