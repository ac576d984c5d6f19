#!lua name=rpx

-- The routing functions: the only code that changes leases, affinity, health
-- and the ranking that derives from them. One call, one atomic step over all
-- gateways. Loading replaces the whole library under running gateways, so a
-- changed signature becomes _v2 and the old one stays for a release.
-- libs/common/routing/policy.py and circuits.py are the same rules in Python: the
-- reference this is tested against (tests/integration/routing/test_policy_agrees.py).
--
-- Keys (names in libs/common/redis/keys.py; all share the hash tag {rpx}):
--   catalogue, catalogue:version   the catalogue's JSON and its content hash
--   born             string ms of the first catalogue since Redis was empty
--   accounts         hash  resource -> account that the upstream's headers named
--   ranking:<pool>   zset  resource -> its rank (below)
--   leases:<res>     hash  <gateway>/<request> -> lease record (JSON of the request
--                          so far); its size IS "in flight"
--   retired          set   resources that left the catalogue with leases on them
--   gateways         zset  gateway -> ms of last heartbeat
--   reports          hash  gateway -> "ms|its books as JSON", of its last heartbeat
--   health:<res>     hash  state, until, cause, failures, pauses, trial, ...
--   pauses:<model>   string JSON, resource -> pause of that model there
--   pauses           zset  model digest -> ms when its last pause ends
--   session:<digest> string "resource|account|tenant" a session is bound to, or "-"
--   sessions         zset  session digest -> ms of its binding's expiry
--   bound:<digest>   string "resource|account|tenant" that minted an upstream id, for
--                          whom (empty: without a proxy key), or "-": looked for in
--                          SQL and not there. A version before tenants wrote
--                          "resource|account": SQL knows whose it is.
--   unproven         set   available resources that no answer has proven yet
--   proxy_keys       hash  SHA-256 of a proxy key's secret -> its record (JSON)
--   proxy_keys:version     number that grows with each change of that table
--   registry:changes string number that grows with each change of the registry in SQL
--   spent:<key id>   string msgpack: what a proxy key used in the last minute
-- A rank below MOMENTS is the load (in flight + 1) / weight of an available
-- resource; from there up the ms when an unavailable one may be tried. So one
-- range tells who can serve, and when the others can. The pool "*" holds every
-- resource: it serves requests that name no pool. The pool "@<provider>" holds those
-- of a provider: it serves requests for its model aliases.
--
-- KEYS of every function: 1 catalogue:version, 2 the telemetry stream. Further
-- names are built from the tag, which keeps them in the same slot.
-- `now` arguments are '' for the server's clock (skewed gateways cannot bend
-- it); tests pass a number.

local TAG = '{rpx}:'
local ALL = '*'
local OF_PROVIDER = '@'    -- and the provider's id: the pool of all its resources
local MOMENTS = 1e12       -- ms; loads stay below by the bounds on weights
local NEVER = 9e15         -- when a refused key may be tried
local FAULTS_IN_A_ROW = 3  -- so many open the circuit
local PAUSE_CAP = 16       -- repeated failure doubles the pause up to so many times
local TRIAL_MS = 30000     -- a half-open trial that never reports is over by then
local MEMORY_MS = 600000   -- so long a model's pause is remembered after its end
local WINDOW = 16          -- ranks looked at, and candidates a decision records
local LAST = '15'          -- WINDOW - 1, as text: numbers are written anew each call
local ROWS_KEPT = 256      -- candidates' JSON kept for each resource
local MOST_KEYS = 1000000  -- in Redis; beyond, keys of affinity end before their time
local MOST_PAUSED = 1000   -- models that are paused, or were a moment ago
local LOOK_EVERY = 64      -- so many are written between two looks at that
local PAGE = 256           -- keys looked at in one go
local UNKNOWN = '-'        -- of an id that SQL does not know either
local NOTHING = {}
local ASK = {}              -- filled anew by each call; a new table would cost more

-- The parsed catalogue, kept between calls. Its version is a hash of its
-- content and is compared at each call, so an old copy is never used.
local cached = { version = false }
local written = 0           -- keys of affinity since the last look at how many there are
local cursor = '0'          -- where that look goes on

local function clock(now)
  if now ~= '' then return tonumber(now) end
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Adds a resource to a pool; its members' ids, in order, tell equal pools.
local function join(pools, name, id)
  local pool = pools[name]
  if not pool then
    pool = { ids = {} }
    pools[name] = pool
  end
  pool.ids[#pool.ids + 1] = id
end

-- Pool -> the key of its ranking. Pools of the same resources share one: a single
-- pool of everything is what names no pool, too.
local function rankings_of(pools)
  local rankings, shared = {}, {}
  local names = {}
  for name in pairs(pools) do names[#names + 1] = name end
  table.sort(names)  -- "*" before all names of pools, "@..." after some
  for _, name in ipairs(names) do
    local members = table.concat(pools[name].ids, ' ')
    shared[members] = shared[members] or TAG .. 'ranking:' .. name
    rankings[name] = shared[members]
  end
  return rankings
end

-- Accounts within each provider: state of an account that another provider holds is
-- out of reach for a request that names a model of this one.
local function add_sibling(accounts, resource)
  local siblings = accounts[resource.account_id] or {}
  siblings[#siblings + 1] = resource.id
  accounts[resource.account_id] = siblings
end

-- The keys of all rankings that a resource is in, each once.
local function distinct(rankings, names)
  local keys, seen = {}, {}
  for _, name in ipairs(names) do
    local key = rankings[name]
    if not seen[key] then keys[#keys + 1], seen[key] = key, true end
  end
  return keys
end

local function index(document, version)
  local parsed = cjson.decode(document)
  local known = {
    version = version, list = parsed.resources, by_id = {}, pools = {},
    accounts = {}, within = {}, all_proven = false, unproven = {},
  }
  local pools = { [ALL] = { ids = {} } }
  for _, resource in ipairs(parsed.resources) do
    local names, pool, provider = { ALL }, resource.pool_id, resource.provider_id
    if pool == cjson.null then pool = nil end
    if provider == cjson.null then provider = nil end
    if pool then
      names[2] = pool
      if not pools[pool] then known.pools[#known.pools + 1] = pool end
    end
    if provider then
      provider = OF_PROVIDER .. provider
      names[#names + 1] = provider
      known.within[provider] = known.within[provider] or {}
      add_sibling(known.within[provider], resource)
    end
    resource.pools = {}
    for _, name in ipairs(names) do
      join(pools, name, resource.id)
      resource.pools[name] = true
    end
    resource.names = names
    resource.leases = TAG .. 'leases:' .. resource.id
    resource.health = TAG .. 'health:' .. resource.id
    resource.ends_lease = string.format(',"resource_id":"%s","account_id":"%s"}',
      resource.id, resource.account_id)
    resource.shown = string.format('{"resource":"%s","weight":%.6g', resource.id, resource.weight)
    known.by_id[resource.id] = resource
    resource.ranks, resource.rows, resource.rows_kept = {}, {}, 0
    add_sibling(known.accounts, resource)
  end
  known.rankings = rankings_of(pools)
  for _, resource in ipairs(parsed.resources) do
    resource.rankings = distinct(known.rankings, resource.names)
  end
  return known
end

local function catalogue(version)
  if not version then return nil end
  if cached.version ~= version then
    local document = redis.call('GET', TAG .. 'catalogue')
    if not document then return nil end
    cached = index(document, version)
  end
  return cached
end

local function current()
  return catalogue(redis.call('GET', TAG .. 'catalogue:version'))
end

local function emit(stream, kind, id, data)
  return redis.call('XADD', stream, '*', 'kind', kind, 'id', id, 'v', '1', 'data', data)
end

-- Ranks ----------------------------------------------------------------------

local function rank(resource, value)
  local rankings = resource.rankings
  redis.call('ZADD', rankings[1], value, resource.id)
  if rankings[2] then
    redis.call('ZADD', rankings[2], value, resource.id)
    if rankings[3] then redis.call('ZADD', rankings[3], value, resource.id) end
  end
end

-- The rank of so many leases, as text: Lua's own numbers would be written anew
-- with each call.
local function rank_of(resource, in_flight)
  local text = resource.ranks[in_flight]
  if not text then
    text = string.format('%.17g', (in_flight + 1) / resource.weight)
    if in_flight < ROWS_KEPT then resource.ranks[in_flight] = text end
  end
  return text
end

local function rank_by_load(resource)
  rank(resource, rank_of(resource, redis.call('HLEN', resource.leases)))
end

local function available(state)
  return state ~= 'degraded' and state ~= 'unhealthy'
end

-- Health ---------------------------------------------------------------------

local function read_health(resource)
  local h = redis.call('HMGET', resource.health, 'state', 'until', 'failures', 'pauses',
    'trial', 'cause', 'requests', 'errors', 'retry_at')
  return {
    state = h[1] or 'unknown', until_ms = tonumber(h[2] or 0),
    failures = tonumber(h[3] or 0), pauses = tonumber(h[4] or 0), trial = h[5] or '',
    cause = h[6] or '', requests = tonumber(h[7] or 0), errors = tonumber(h[8] or 0),
    retry_at = tonumber(h[9] or 0),
  }
end

-- `model` is its name as JSON, or nil when the resource as a whole changed.
local function transition(stream, now, resource, before, after, cause, until_ms, model)
  if before == after then return end
  local event = string.format(
    '{"created_at_ms":%.0f,"resource_id":"%s","model":%s,"before":"%s","after":"%s",'
    .. '"cause":%s,"cooldown_until_ms":%s}', now, resource.id, model or 'null', before,
    after, cjson.encode(cause),
    until_ms and until_ms < NEVER and string.format('%.0f', until_ms) or 'null')
  -- Two models of a resource may change in the same millisecond.
  local id = string.format('%013d-%s-%s', now, resource.id, after)
  if model then id = id .. '-' .. string.sub(redis.sha1hex(model), 1, 12) end
  emit(stream, 'health', id, event)
end

-- Failing again after a pause doubles the next one; failing during it (answers
-- still under way, checks, panic) does not. Deadlines merge by max: a shorter
-- pause never ends a longer one early.
local function lengthen(circuit, now, cooldown_ms)
  local during = circuit.until_ms > now
  local factor = during and 1 or math.min(2 ^ circuit.pauses, PAUSE_CAP)
  circuit.until_ms = math.max(circuit.until_ms, now + cooldown_ms * factor)
  if not during then circuit.pauses = circuit.pauses + 1 end
  circuit.trial = ''
end

local function pause(stream, now, resource, health, verdict)
  lengthen(health, now, verdict.cooldown_ms)
  redis.call('HSET', resource.health, 'state', 'degraded', 'until', health.until_ms,
    'cause', verdict.cause, 'failures', 0, 'pauses', health.pauses, 'trial', '')
  rank(resource, health.until_ms)
  transition(stream, now, resource, health.state, 'degraded', verdict.cause, health.until_ms)
  return 'degraded'
end

local function recover(stream, now, resource, health)
  redis.call('HSET', resource.health, 'state', 'healthy', 'until', 0, 'cause', '',
    'failures', 0, 'pauses', 0, 'trial', '', 'retry_at', 0)
  redis.call('SREM', TAG .. 'unproven', resource.id)
  rank_by_load(resource)
  transition(stream, now, resource, health.state, 'healthy', 'ok', nil)
  return 'healthy'
end

-- A key the upstream refuses, or one without money. A check of /models passes
-- without money too: it only lets one request try, `retry_at` at the earliest.
local function shut(stream, now, resource, health, verdict)
  local retry_at, pauses = 0, health.pauses
  if verdict.kind == 'exhausted' then
    local during = health.state == 'unhealthy'
    local factor = during and 1 or math.min(2 ^ pauses, PAUSE_CAP)
    retry_at = math.max(health.retry_at, now + verdict.cooldown_ms * factor)
    if not during then pauses = pauses + 1 end
  end
  redis.call('HSET', resource.health, 'state', 'unhealthy', 'until', NEVER, 'cause',
    verdict.cause, 'failures', 0, 'pauses', pauses, 'trial', '', 'retry_at', retry_at)
  rank(resource, NEVER)
  transition(stream, now, resource, health.state, 'unhealthy', verdict.cause, NEVER)
  return 'unhealthy'
end

local function half_open(stream, now, resource, health)
  local until_ms = math.max(now, health.retry_at)
  redis.call('HSET', resource.health, 'state', 'degraded', 'until', until_ms)
  rank(resource, until_ms)
  transition(stream, now, resource, health.state, 'degraded', health.cause, until_ms)
  return 'degraded'
end

local function succeed(stream, now, resource, health, by)
  local state = health.state
  if state == 'healthy' and health.failures == 0 then return state end
  if state == 'unhealthy' then
    if by ~= 'probe' then return state end  -- was under way before the refusal
    if health.retry_at > 0 then return half_open(stream, now, resource, health) end
  elseif state == 'degraded' then
    -- A pause that still runs is not cut short by an answer that was under way
    -- before it began; nor does a check prove that there is money.
    local on_trial = health.trial ~= '' and health.trial == by
    if health.until_ms > now and not on_trial then return state end
    if by == 'probe' and health.retry_at > 0 then return state end
  end
  return recover(stream, now, resource, health)
end

-- verdict: kind, cause, cooldown_ms; by: request id of the answer, or 'probe'.
-- `paced` tells that a pause concerns a model and was noted there.
-- Returns the state that results.
local function judge(stream, now, resource, health, verdict, by, paced)
  local kind = verdict.kind
  if kind == 'ok' then return succeed(stream, now, resource, health, by) end
  if kind == 'refused' or kind == 'exhausted' then
    return shut(stream, now, resource, health, verdict)
  end
  local on_trial = health.trial ~= '' and health.trial == by
  if health.state == 'unhealthy' then return health.state end
  if kind == 'limited' and not paced then
    return pause(stream, now, resource, health, verdict)
  elseif kind == 'fault' then
    if on_trial or health.failures + 1 >= FAULTS_IN_A_ROW then
      return pause(stream, now, resource, health, verdict)
    end
    redis.call('HSET', resource.health, 'failures', health.failures + 1)
  elseif on_trial then
    -- The trial said nothing of the resource (the client left, or asked
    -- nonsense, or one model is limited): next, please.
    redis.call('HSET', resource.health, 'trial', '')
    rank(resource, now)
  end
  return health.state
end

-- Pauses of one model --------------------------------------------------------

-- cjson turns an empty table into an array, and back into an empty table.
local function read_pauses(document)
  return document and cjson.decode(document) or nil
end

local function write_pauses(digest, pauses, now)
  local key, latest = TAG .. 'pauses:' .. digest, nil
  for _, circuit in pairs(pauses) do
    latest = math.max(latest or 0, circuit.until_ms, circuit.trial_until or 0)
  end
  if not latest then
    redis.call('DEL', key)
    redis.call('ZREM', TAG .. 'pauses', digest)
    return
  end
  local keep_ms = math.max(latest - now, 0) + MEMORY_MS
  redis.call('SET', key, cjson.encode(pauses), 'PX', string.format('%.0f', keep_ms))
  -- Clients choose the names of models. The pause that ends first makes room.
  if redis.call('ZADD', TAG .. 'pauses', latest, digest) == 1
    and redis.call('ZCARD', TAG .. 'pauses') > MOST_PAUSED then
    redis.call('DEL', TAG .. 'pauses:' .. redis.call('ZPOPMIN', TAG .. 'pauses')[1])
  end
end

-- When a paused model may be tried again on a resource.
local function ready_at(circuit)
  return circuit.trial ~= '' and circuit.trial_until or circuit.until_ms
end

-- The same rules as for a whole resource. Returns whether the verdict was a
-- pause of this model.
local function judge_model(stream, now, resource, pauses, model, verdict, by)
  local circuit = pauses and pauses[resource.id]
  local on_trial = circuit and circuit.trial ~= '' and circuit.trial == by
  local kind = verdict.kind
  if kind == 'limited' or (kind == 'fault' and on_trial) then
    local before = circuit and 'degraded' or 'healthy'
    circuit = circuit or { until_ms = 0, pauses = 0, trial = '', model = model.name }
    lengthen(circuit, now, verdict.cooldown_ms)
    circuit.trial_until, circuit.cause = nil, verdict.cause
    pauses = pauses or {}
    pauses[resource.id] = circuit
    transition(stream, now, resource, before, 'degraded', verdict.cause, circuit.until_ms,
      cjson.encode(model.name))
  elseif not circuit then
    return false
  elseif kind == 'ok' and (on_trial or circuit.until_ms <= now) then
    pauses[resource.id] = nil
    transition(stream, now, resource, 'degraded', 'healthy', 'ok', nil,
      cjson.encode(circuit.model))
  elseif on_trial and kind ~= 'ok' then
    circuit.trial, circuit.trial_until = '', nil
  else
    return false
  end
  write_pauses(model.digest, pauses, now)
  return kind == 'limited'
end

-- Choice ---------------------------------------------------------------------

-- The ranks of a pool, best first: id, rank, id, rank... as Redis tells them. Of
-- a large pool the first WINDOW, and then the first of those that are unavailable:
-- it is `partial`, and `rest` says that there may be more that are available.
local function survey(ranking, whole)
  local view = redis.call('ZRANGE', ranking, '0', whole and '-1' or LAST, 'WITHSCORES')
  if #view == 2 * WINDOW and not whole then
    view.partial = true
    view.rest = tonumber(view[#view]) < MOMENTS
    local count = #view
    while count > 0 and tonumber(view[count]) >= MOMENTS do
      view[count], view[count - 1], count = nil, nil, count - 2
    end
    local away = redis.call('ZRANGE', ranking, MOMENTS, '+inf', 'BYSCORE', 'LIMIT', 0,
      WINDOW, 'WITHSCORES')
    for i = 1, #away do view[count + i] = away[i] end
  end
  return view
end

-- The least loaded that can serve, and who is back first of those that cannot
-- yet, when: every rank has to be looked at.
local function weigh_all(view, ask)
  local ties, lowest, soonest, soonest_ms = {}, nil, nil, nil
  for i = 1, #view, 2 do
    local id, value = view[i], tonumber(view[i + 1])
    if not ask.tried[id] then
      local circuit = ask.pauses and ask.pauses[id]
      local until_ms = circuit and ready_at(circuit) or 0
      if value >= MOMENTS and value > until_ms then until_ms = value end
      if until_ms == 0 then
        if not lowest or value < lowest then
          lowest, ties = value, { id }
        elseif value == lowest then
          ties[#ties + 1] = id
        end
      elseif until_ms < NEVER and (not soonest or until_ms < soonest_ms) then
        soonest, soonest_ms = id, until_ms
      end
    end
  end
  return ties, lowest, soonest, soonest_ms
end

-- The same; quick when all can serve, as usual: the first are the least loaded.
local function weigh(view, ask)
  if ask.pauses or ask.tried ~= NOTHING or #view == 0 or tonumber(view[#view]) >= MOMENTS then
    return weigh_all(view, ask)
  end
  local lowest, ties = view[2], { view[1] }
  for i = 4, #view, 2 do
    if view[i] ~= lowest then break end
    ties[#ties + 1] = view[i - 1]
  end
  return ties, tonumber(lowest)
end

-- Ties fall to `draw`, so that replicas do not herd; also to those beyond the
-- window.
local function drawn(view, ranking, ask, ties, lowest)
  if view.rest and tonumber(view[2 * WINDOW]) == lowest then
    local all = redis.call('ZCOUNT', ranking, lowest, lowest)
    local offset = ask.draw % all
    local id = redis.call('ZRANGE', ranking, offset, offset)[1]
    if not ask.tried[id] then return id end
  end
  return ties[ask.draw % #ties + 1]
end

local function by_load(known, ask, reason)
  local view, ranking = ask.view, known.rankings[ask.pool]
  local ties, lowest, soonest, soonest_ms = weigh(view, ask)
  if view.partial and (ask.pauses or #ties == 0) then
    view = survey(ranking, true)
    ties, lowest, soonest, soonest_ms = weigh(view, ask)
  end
  -- Half open: the first whose pause is over gets one request.
  if soonest and soonest_ms <= clock(ask.now) then return soonest, reason, 'trial' end
  if #ties > 0 then return drawn(view, ranking, ask, ties, lowest), reason, 'free', lowest end
  if soonest then return soonest, 'panic' end
  return nil, 'no_capacity'
end

local function cause_of(known, ask, id)
  local circuit = ask.pauses and ask.pauses[id]
  if circuit then return circuit.cause end
  return redis.call('HGET', known.by_id[id].health, 'cause') or ''
end

-- Where state of `account` can be read: its owner, else a sibling, else the
-- one that is back first decides (design.md section 3).
local function by_account(known, owner, account, ask)
  ask.account = account
  local siblings = (known.within[ask.pool] or known.accounts)[account]
  if not siblings then return nil, 'owner_gone' end
  local reply = redis.call('ZMSCORE', known.rankings[ALL], unpack(siblings))
  local view, tried_any = {}, false
  for i, id in ipairs(siblings) do
    local value = tonumber(reply[i] or NEVER)
    view[2 * i - 1], view[2 * i] = id, value
    if id == owner and value < MOMENTS and not ask.tried[id]
        and not (ask.pauses and ask.pauses[id]) then
      return owner, 'response_affinity', 'free', value
    end
    tried_any = tried_any or (ask.tried[id] and value < NEVER)
  end
  local ties, lowest, first, first_ms = weigh_all(view, ask)
  if #ties > 0 then
    return ties[ask.draw % #ties + 1], 'response_affinity', 'free', lowest
  end
  if not first then return nil, tried_any and 'no_capacity' or 'owner_gone' end
  if first_ms <= clock(ask.now) then return first, 'response_affinity', 'trial' end
  if string.sub(cause_of(known, ask, first), 1, 3) == '429' then
    return nil, 'owner_limited', nil, first_ms
  end
  return first, 'response_affinity'  -- failing, yet the only one: try it anyway
end

-- Resource, account, tenant; without a tenant what a version before them wrote.
local function split(value)
  local resource, account, tenant = string.match(value, '^([^|]*)|(.*)|([^|]*)$')
  if resource then return resource, account, tenant end
  return string.match(value, '^([^|]*)|(.*)$')
end

local function tenant_of(value)
  return string.match(value, '^[^|]*|.*|([^|]*)$')
end

-- The owner of the first bound id that is known, and whether there were ids that
-- nobody has looked for in SQL.
local function owner_of(ask)
  local unsought = ask.account_bound and ask.session == false
  for i = 1, ask.bound do
    local value = ask.ids[i]
    if value and value ~= UNKNOWN then return value end
    unsought = unsought or not value
  end
  return nil, unsought
end

-- May the asker name its ids? Returns nil, or why not ('foreign_id': it is another
-- tenant's; 'unknown_id': nobody minted it here) and which one, counted from 0; then
-- whether there are ids whose owner has to be looked for in SQL first.
-- libs/common/routing/policy.py has the same rule (foreign_id).
local function foreign_id(ask)
  local isolated, unsought = ask.kinds ~= '', false
  for i = 1, ask.count do
    local value, owner = ask.ids[i], nil
    local sought = ask.resolved or not isolated
    if value == UNKNOWN then
      sought = true
    elseif value then
      owner = tenant_of(value)
      sought = sought or owner ~= nil
    end
    if not sought then
      unsought = true
    elseif owner then
      if owner ~= ask.tenant and (owner ~= '' or ask.strict) then
        return 'foreign_id', i - 1
      end
    elseif ask.strict and string.sub(ask.kinds, i, i) == 'n' then
      return 'unknown_id', i - 1
    end
  end
  return nil, nil, unsought
end

-- The rank of a session's home, if it can serve the next request too.
local function at_home(known, ask, kept)
  local resource = known.by_id[kept]
  if not resource or ask.tried[kept] or (ask.pauses and ask.pauses[kept]) then return nil end
  if not resource.pools[ask.pool] then return nil end
  local view, value = ask.view, nil
  for i = 1, #view, 2 do
    if view[i] == kept then
      value = tonumber(view[i + 1])
      break
    end
  end
  if not value and view.partial then
    value = tonumber(redis.call('ZSCORE', known.rankings[ask.pool], kept) or NEVER)
  end
  return value and value < MOMENTS and value or nil
end

-- Returns resource or nil, reason, how ('free': it is available, 'trial': half open,
-- nil: in spite of its condition), and a number: the rank of a free resource, else
-- the ms when it is worth asking again.
local function choose(known, ask)
  local kept, account
  if ask.session then kept, account = split(ask.session) end
  local found, unsought = owner_of(ask)
  found = found or (ask.account_bound and kept and ask.session) or ask.hint
  if found then
    local owner, minter = split(found)
    local resource = known.by_id[owner]
    ask.home = owner
    return by_account(known, owner, resource and resource.account_id or minter, ask)
  end
  if unsought and not ask.resolved then return nil, 'look_up' end
  ask.home = kept
  local value = kept and at_home(known, ask, kept)
  if value then return kept, 'session_affinity', 'free', value end
  if ask.replayed then return by_load(known, ask, 'replayed_without_reasoning') end
  return by_load(known, ask, kept and 'session_failover' or 'weighted_least_connections')
end

-- Why a resource was not eligible, if so; and its health.
local function standing(known, ask, id, value)
  local circuit = ask.pauses and ask.pauses[id]
  if value >= NEVER then return 'key refused by the upstream', 'unhealthy' end
  if value >= MOMENTS then
    return string.format('cooling down until %.0f', value), 'degraded'
  elseif circuit then
    return string.format('cooling down for this model until %.0f', ready_at(circuit)),
      'degraded'
  end
  local health = known.unproven[id] and 'unknown' or 'healthy'
  if ask.account and known.by_id[id].account_id ~= ask.account then
    return 'another account', health
  end
  return ask.tried[id] and 'already tried' or nil, health
end

-- What is usual is left out: healthy, and not refused.
local function candidate_json(known, ask, id, value)
  local resource = known.by_id[id]
  local refused, health = standing(known, ask, id, value)
  local row = resource.shown
  if value < MOMENTS then
    row = row .. string.format(',"score":%.6g,"in_flight":%d', value,
      value * resource.weight - 0.5)
  end
  if health ~= 'healthy' then row = row .. ',"health":"' .. health .. '"' end
  if refused then row = row .. ',"refused":"' .. refused .. '"' end
  return row .. '}'
end

-- The same, kept for usual ranks: these rows are half of what a decision costs.
local function usual_json(known, ask, resource, rank_text)
  local rows, value = resource.rows, tonumber(rank_text)
  local row = candidate_json(known, ask, resource.id, value)
  if value < MOMENTS and resource.rows_kept < ROWS_KEPT then
    rows[rank_text], resource.rows_kept = row, resource.rows_kept + 1
  end
  return row
end

-- Resources whose health is unknown: until all are proven, once per call.
local function know_the_unproven(known)
  if known.all_proven then return end
  local unproven = redis.call('SMEMBERS', TAG .. 'unproven')
  known.all_proven, known.unproven = #unproven == 0, {}
  for _, id in ipairs(unproven) do known.unproven[id] = true end
end

-- What the choice was made from, a JSON object each, best first; the chosen one
-- always.
local function candidates(known, ask, view, chosen)
  know_the_unproven(known)
  local usual = known.all_proven and not ask.account and not ask.pauses
    and ask.tried == NOTHING
  local by_id, rows, count, shown = known.by_id, {}, 0, not chosen
  for i = 1, #view, 2 do
    local id, rank_text = view[i], view[i + 1]
    local resource = by_id[id]
    if resource then
      count = count + 1
      if usual then
        rows[count] = resource.rows[rank_text] or usual_json(known, ask, resource, rank_text)
      else
        rows[count] = candidate_json(known, ask, id, tonumber(rank_text))
      end
      shown = shown or id == chosen
    end
  end
  if not shown then
    local value = tonumber(redis.call('ZSCORE', known.rankings[ALL], chosen) or NEVER)
    table.insert(rows, 1, candidate_json(known, ask, chosen, value))
  end
  return rows
end

-- Why the home of a session or of state was passed over.
local function cause_of_leaving(known, ask)
  if not known.by_id[ask.home] then return 'gone' end
  local value = tonumber(redis.call('ZSCORE', known.rankings[ALL], ask.home) or NEVER)
  if value >= NEVER then return 'unhealthy' end
  local paused = ask.pauses and ask.pauses[ask.home]
  return (value >= MOMENTS or paused) and 'cooling_down' or 'another_pool'
end

-- What ended an earlier attempt stands in the head.
local function decision_json(known, ask, id, reason)
  local left = ''
  if ask.home and ask.home ~= id and ask.attempt == '1' then
    left = '","cause":"' .. cause_of_leaving(known, ask)
  end
  return ask.head .. ',"resource_id":' .. (id and '"' .. id .. '"' or 'null')
    .. ',"reason":"' .. reason .. left .. '","candidates":['
    .. table.concat(candidates(known, ask, ask.view, id), ',') .. ']}'
end

-- Leases ---------------------------------------------------------------------

local function field_of(gateway, request)
  return gateway .. '/' .. request
end

-- A resource that left the catalogue keeps its leases until they end.
local function leases_of(id)
  return TAG .. 'leases:' .. id
end

local function every_holder(known)
  local ids = redis.call('SMEMBERS', TAG .. 'retired')
  for _, resource in ipairs(known and known.list or {}) do ids[#ids + 1] = resource.id end
  return ids
end

-- Ends a lease wherever it is, at `likely` first. Returns the resource's id.
local function drop_lease(known, likely, field)
  if likely ~= '' and redis.call('HDEL', leases_of(likely), field) == 1 then return likely end
  for _, id in ipairs(every_holder(known)) do
    if redis.call('HDEL', leases_of(id), field) == 1 then return id end
  end
end

local function state_of(resource)
  return redis.call('HGET', resource.health, 'state') or 'unknown'
end

-- Its leases changed: rank it anew, if it is ranked by load.
local function reweigh(known, id, state)
  local resource = known and known.by_id[id]
  if resource then
    if available(state or state_of(resource)) then rank_by_load(resource) end
  elseif redis.call('HLEN', leases_of(id)) == 0 then
    redis.call('SREM', TAG .. 'retired', id)
  end
end

-- Returns 1 when it is new, 0 when the request held it already.
local function take_lease(known, ask, resource)
  local field = field_of(ask.gateway, ask.request)
  if ask.previous ~= '' and ask.previous ~= resource.id
      and redis.call('HDEL', leases_of(ask.previous), field) == 1 then
    reweigh(known, ask.previous)
  end
  return redis.call('HSET', resource.leases, field,
    ask.lease .. ',"attempts":' .. ask.attempt .. resource.ends_lease)
end

local function begin_trial(ask, resource, value)
  local circuit = ask.pauses and ask.pauses[resource.id]
  if circuit then
    circuit.trial, circuit.trial_until = ask.request, clock(ask.now) + TRIAL_MS
    write_pauses(ask.model, ask.pauses, clock(ask.now))
  end
  if value >= MOMENTS then
    redis.call('HSET', resource.health, 'trial', ask.request)
    rank(resource, clock(ask.now) + TRIAL_MS)
  else
    rank_by_load(resource)
  end
end

-- Limits of proxy keys --------------------------------------------------------

-- What a key used is counted in slots of SLOT_MS. The current slot and the SLOTS - 1
-- before it are more than a minute and less than a minute and a slot; all of them
-- count in full. So no 60 s ever hold more requests than the limit, wherever they
-- begin, and a key that stays at its limit gets 12/13 of it. A token bucket, or two
-- buckets of a minute, would let twice the limit through in some minutes.
local SLOT_MS = 5000
local SLOTS = 13

-- A flat array: the newest slot's number, requests of each slot, tokens of each slot;
-- slot n lies at place n % SLOTS.
local function read_spent(key, now)
  local slot, packed = math.floor(now / SLOT_MS), redis.call('GET', key)
  local spent = packed and cmsgpack.unpack(packed)
  if not spent or slot - spent[1] >= SLOTS then
    spent = { slot }
    for i = 2, 2 * SLOTS + 1 do spent[i] = 0 end
    return spent
  end
  for passed = spent[1] + 1, slot do
    local place = 2 + passed % SLOTS
    spent[place], spent[place + SLOTS] = 0, 0
  end
  if slot > spent[1] then spent[1] = slot end  -- clocks may step back
  return spent
end

local function write_spent(key, spent)
  redis.call('SET', key, cmsgpack.pack(spent), 'PX', SLOT_MS * SLOTS)
end

-- Ms until less than `limit` is counted, 0 when that is so now. `first`: the place
-- before the counts.
local function wait_for(spent, first, limit, now)
  local counted = 0
  for i = 1, SLOTS do counted = counted + spent[first + i] end
  local newest, wait = spent[1], 0
  for slot = newest - SLOTS + 1, newest do  -- the oldest leaves first
    if counted < limit then break end
    counted = counted - spent[first + 1 + slot % SLOTS]
    wait = (slot + SLOTS) * SLOT_MS - now
  end
  return wait
end

-- Counts a request of a proxy key and returns nil; or nothing is counted, and the
-- limit that is reached ('requests' or 'tokens') and the ms to wait are returned.
-- Limits are strings, '' for none. Once for each request, not for each attempt.
-- Tokens are known when an answer ends, so that limit stops the requests that come
-- after it was reached, not those under way.
local function within_limits(key_id, requests, tokens, now)
  if requests == '' and tokens == '' then return nil end
  local key = TAG .. 'spent:' .. key_id
  local spent = read_spent(key, now)
  local wait = requests ~= '' and wait_for(spent, 1, tonumber(requests), now) or 0
  if wait > 0 then return 'requests', wait end
  wait = tokens ~= '' and wait_for(spent, 1 + SLOTS, tonumber(tokens), now) or 0
  if wait > 0 then return 'tokens', wait end
  local place = 2 + spent[1] % SLOTS
  spent[place] = spent[place] + 1
  write_spent(key, spent)
end

-- Adds the tokens of an answer to what its proxy key used.
local function count_tokens(key_id, tokens, now)
  if tokens <= 0 then return end
  local key = TAG .. 'spent:' .. key_id
  local spent = read_spent(key, now)
  local place = 2 + SLOTS + spent[1] % SLOTS
  spent[place] = spent[place] + tokens
  write_spent(key, spent)
end

-- Asking ---------------------------------------------------------------------

-- One MGET tells all that affinity and pauses know. Values of keys that are not
-- there are false.
local function remembered(ask, args, first)
  -- Without a model or a session these are keys that never exist.
  local pauses, session = TAG .. 'pauses:' .. ask.model, TAG .. 'session:' .. ask.named
  local values
  if ask.count == 0 and ask.named == '' then
    values = redis.call('MGET', TAG .. 'catalogue:version', pauses)
  elseif ask.count == 0 then
    values = redis.call('MGET', TAG .. 'catalogue:version', pauses, session)
  else
    local names = { TAG .. 'catalogue:version', pauses, session }
    for i = 1, ask.count do names[3 + i] = TAG .. 'bound:' .. args[first - 1 + i] end
    values = redis.call('MGET', unpack(names))
    ask.ids = {}
    for i = 1, ask.count do ask.ids[i] = values[3 + i] end
  end
  ask.pauses = read_pauses(values[2])
  if ask.named ~= '' then ask.session = values[3] end
  return values[1]
end

-- ARGV of acquire_v1 and explain: gateway, request, attempt, decision id, pool or '',
--   session digest or '', model digest or '', account bound 0|1, whether SQL was
--   asked for unknown ids 0|1 (r: the request was rewritten, so that it is bound to
--   no account any more), owner that SQL told ("resource|account") or '',
--   draw, head of the decision event and head of the lease record (JSON objects
--   without their closing brace), now, resource that holds this request's lease
--   or '', number of bound digests, those digests, resources tried already.
-- acquire_v2 has after that number: the tenant that asks or '', strict 0|1, and what
--   kind of id each digest is of, one letter each (n: clients do not invent it, r: they
--   may) or '' when no id has to be looked for; then the bound digests and further
--   ones, and the resources. It checks that the ids are the tenant's.
local function read_ask(args, isolated)
  local ask = ASK
  ask.gateway, ask.request, ask.attempt, ask.decision = args[1], args[2], args[3], args[4]
  ask.pool = args[5] ~= '' and args[5] or ALL
  ask.named, ask.model, ask.account_bound = args[6], args[7], args[8] == '1'
  ask.resolved, ask.replayed = args[9] ~= '0', args[9] == 'r'
  ask.hint, ask.draw = args[10] ~= '' and args[10] or nil, tonumber(args[11])
  ask.head, ask.lease, ask.now, ask.previous = args[12], args[13], args[14], args[15]
  ask.ids, ask.tried = NOTHING, NOTHING
  ask.view, ask.account, ask.session, ask.pauses, ask.home = nil, nil, nil, nil, nil
  local first = 17
  ask.bound = tonumber(args[16])
  ask.count = ask.bound
  if isolated then
    ask.tenant, ask.strict, ask.kinds, first = args[17], args[18] == '1', args[19], 20
    if #ask.kinds > ask.count then ask.count = #ask.kinds end
  end
  if #args >= first + ask.count then
    ask.tried = {}
    for i = first + ask.count, #args do ask.tried[args[i]] = true end
  end
  return ask, catalogue(remembered(ask, args, first))
end

-- Of what this Redis holds: a young one may not have been told all yet.
local function age()
  return string.format('%.0f', clock('') - tonumber(redis.call('GET', TAG .. 'born') or 0))
end

-- What cannot be asked at all.
local function senseless(known, ask)
  if not known then return { 'no_catalogue' } end
  if #known.list == 0 then return { 'no_resources' } end
  if not known.rankings[ask.pool] then
    local reply = { 'unknown_pool' }
    for _, pool in ipairs(known.pools) do reply[#reply + 1] = pool end
    return reply
  end
end

-- rpx_acquire_v2
-- Returns 'resource|reason|version|is it a half-open trial 0|1|event' (one string: a
-- table costs more than a Redis call), or
--   {'look_up', age ms of this Redis's content}: ids are unknown here and SQL was not
--   asked yet; nothing was done,
--   {'unknown_pool', pool...}, {'no_catalogue'}, {'no_resources'},
--   {'no_capacity'|'owner_limited', ms to wait, event}, {'owner_gone', 0, event},
--   {'foreign_id'|'unknown_id', which id, event}.
-- `event` is the decision event's JSON: the gateway keeps events until they are
-- stored, should this Redis die first.
-- Safe to repeat: the same request moves its lease, it never holds two.
local function acquire(keys, args, isolated)
  local ask, known = read_ask(args, isolated)
  local wrong = senseless(known, ask)
  if wrong then return wrong end
  ask.view = survey(known.rankings[ask.pool])
  if isolated and ask.count > 0 then
    local why, which, unsought = foreign_id(ask)
    if why then
      local event = decision_json(known, ask, nil, why)
      emit(keys[2], 'decision', ask.decision, event)
      return { why, tostring(which), event }
    end
    if unsought then return { 'look_up', age() } end
  end
  local id, reason, how, value = choose(known, ask)
  if reason == 'look_up' then return { reason, age() } end
  local event = decision_json(known, ask, id, reason)
  emit(keys[2], 'decision', ask.decision, event)
  if not id then
    local wait = value and math.max(value - clock(ask.now), 0) or 0
    return { reason, string.format('%.0f', wait), event }
  end
  local resource = known.by_id[id]
  local added = take_lease(known, ask, resource)
  if how == 'trial' then
    begin_trial(ask, resource, tonumber(redis.call('ZSCORE', known.rankings[ALL], id)))
  elseif how == 'free' then
    -- (in flight + 1) / weight was its rank.
    rank(resource, rank_of(resource, math.floor(value * resource.weight + 0.5) - 1 + added))
  else
    reweigh(known, id)  -- it may be only this model that is paused
  end
  return id .. '|' .. reason .. '|' .. known.version .. (how == 'trial' and '|1|' or '|0|')
    .. event
end

-- rpx_acquire_v1  The same of a gateway before tenants: its ids are not checked.
local function acquire_for_anybody(keys, args)
  return acquire(keys, args, false)
end

local function acquire_for_tenant(keys, args)
  return acquire(keys, args, true)
end

-- rpx_explain_v1  The same question without effects. Returns {status, resource or
--   '', reason, trial 0|1, ms to wait, all candidates as JSON}, or as acquire does
--   what cannot be asked.
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
    string.format('%.0f', wait),
    '[' .. table.concat(rows, ',') .. ']',
  }
end

-- Ends up to so many keys of affinity, of some the half with the least time left: about
-- what Redis does at `maxmemory`, but at a number of keys, and to these alone. What goes
-- early is found again in SQL.
local function end_some(count)
  local found, left = {}, {}
  local page = redis.call('SCAN', cursor, 'COUNT', PAGE)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    if string.match(key, '^{rpx}:bound:') or string.match(key, '^{rpx}:session:') then
      found[#found + 1], left[key] = key, redis.call('PTTL', key)
    end
  end
  table.sort(found, function(a, b) return left[a] < left[b] end)
  for i = 1, math.min(count, math.ceil(#found / 2)) do
    redis.call('DEL', found[i])
    local session = string.match(found[i], '^{rpx}:session:(.*)$')
    if session then redis.call('ZREM', TAG .. 'sessions', session) end
  end
end

-- Called when so many keys of affinity were written: clients choose their number.
local function make_room(count, now)
  written = written + count
  if written < LOOK_EVERY then return end
  local surplus = math.min(redis.call('DBSIZE') - MOST_KEYS, 2 * written)
  written = 0
  redis.call('ZREMRANGEBYSCORE', TAG .. 'sessions', '-inf', now)
  while surplus > 0 do
    end_some(surplus)
    surplus = surplus - PAGE / 2
  end
end

-- An id stays with the tenant that minted it: a later answer may repeat ids that its
-- client chose.
local function learn(digest, owner, tenant, ttl)
  local key = TAG .. 'bound:' .. digest
  local before = redis.call('SET', key, owner, 'PX', ttl, 'GET')
  if before and before ~= owner and before ~= UNKNOWN then
    local minter = tenant_of(before)
    if minter and minter ~= tenant then redis.call('SET', key, before, 'PX', ttl) end
  end
end

-- A session is bound by success only; that an account minted an id is a fact
-- however the request ended.
local function remember(said, now, resource)
  local owner = resource.id .. '|' .. resource.account_id
  if said.tenant then owner = owner .. '|' .. said.tenant end
  if said.session ~= '' and said.verdict.kind == 'ok' then
    redis.call('SET', TAG .. 'session:' .. said.session, owner, 'PX', said.session_ttl)
    redis.call('ZADD', TAG .. 'sessions', now + said.session_ttl, said.session)
  end
  for _, digest in ipairs(said.learned) do
    learn(digest, owner, said.tenant, said.id_ttl)
  end
  make_room(#said.learned + 1, now)
end

local function tally(resource, health, verdict, latency_ms)
  local fields = { 'requests', health.requests + 1 }
  if latency_ms ~= '' then
    fields[3], fields[4] = 'latency_ms', latency_ms
  end
  if verdict.kind ~= 'ok' and verdict.kind ~= 'neutral' then
    fields[#fields + 1], fields[#fields + 2] = 'errors', health.errors + 1
    fields[#fields + 1], fields[#fields + 2] = 'last_error', verdict.cause
  end
  redis.call('HSET', resource.health, unpack(fields))
end

local function read_release(args, isolated)
  local said = {
    gateway = args[1], request = args[2], resource = args[3],
    verdict = { kind = args[4], cause = args[5], cooldown_ms = tonumber(args[6]) },
    latency_ms = args[7], now = clock(args[8]), session = args[9],
    session_ttl = tonumber(args[10]), id_ttl = tonumber(args[11]),
    model = { digest = args[12], name = args[13] }, event = args[14], learned = {},
  }
  if isolated then said.tenant = args[15] end
  for i = isolated and 16 or 15, #args do said.learned[#said.learned + 1] = args[i] end
  return said
end

-- Applies what an attempt says of its resource; returns the state after.
local function apply(stream, said, resource, pauses)
  local health, verdict = read_health(resource), said.verdict
  local over = said.event ~= ''
  -- `ok` before the end is a trial's good beginning; its end is counted.
  if over or verdict.kind ~= 'ok' then tally(resource, health, verdict, said.latency_ms) end
  local paced = said.model.digest ~= ''
    and judge_model(stream, said.now, resource, pauses, said.model, verdict, said.request)
  return judge(stream, said.now, resource, health, verdict, said.request, paced)
end

-- rpx_release_v2  ARGV: gateway, request, resource or '', verdict kind or '', cause,
--   cooldown ms, latency ms or '', now, session digest or '', session ttl ms,
--   id ttl ms, model digest or '', model name, request event JSON or '', the tenant
--   that asked or '' (not in v1, which a gateway before tenants calls), learned digests.
-- With an event the request is over: its lease goes and the event is written.
-- Without one only the verdict counts; the next acquire moves the lease, so
-- that a gateway dying between two attempts still leaves a trace. No verdict
-- kind: the attempt was judged already.
-- Safe to repeat. Returns the stream's id of the request event, or '' without one.
local function release(keys, args, isolated)
  local said = read_release(args, isolated)
  local names = { TAG .. 'catalogue:version' }
  if said.model.digest ~= '' then names[2] = TAG .. 'pauses:' .. said.model.digest end
  local found = redis.call('MGET', unpack(names))
  local known, pauses = catalogue(found[1]), read_pauses(found[2])
  local resource = known and known.by_id[said.resource]
  local over, state = said.event ~= '', nil
  if resource and said.verdict.kind ~= '' then
    state = apply(keys[2], said, resource, pauses)
    if over then remember(said, said.now, resource) end
  end
  if not over then return '' end
  local held = drop_lease(known, said.resource, field_of(said.gateway, said.request))
  if held then
    local holder = known and known.by_id[held]
    if holder and held ~= said.resource then
      -- Left before it was known where it went: a trial has not taken place.
      said.verdict = { kind = 'neutral' }
      state = judge(keys[2], said.now, holder, read_health(holder), said.verdict, said.request)
      judge_model(keys[2], said.now, holder, pauses, said.model, said.verdict, said.request)
    end
    reweigh(known, held, state)
  end
  return emit(keys[2], 'request', said.request, said.event)
end

local function release_for_anybody(keys, args)
  return release(keys, args, false)
end

local function release_for_tenant(keys, args)
  return release(keys, args, true)
end

-- Gateways -------------------------------------------------------------------

-- rpx_heartbeat_v1  ARGV: gateway, now.  Returns {the catalogue's version or '',
-- was the gateway known 0|1}. One that was not has been reaped, or Redis was
-- emptied: it should resume.
local function heartbeat(_, args)
  local version = redis.call('GET', TAG .. 'catalogue:version')
  -- Not before it can resume: it would be taken for one that did.
  if not version then return { '', 0 } end
  local added = redis.call('ZADD', TAG .. 'gateways', clock(args[2]), args[1])
  return { version, 1 - added }
end

-- How far the stream is: its first entry's id or '' when it is empty, the last id it
-- ever gave, how many entries it ever had. What is older than the first is stored.
local function stream_ends(stream)
  local told, listed = {}, redis.pcall('XINFO', 'STREAM', stream)
  if listed.err then return '', '0-0', 0 end  -- there is none
  for i = 1, #listed, 2 do told[listed[i]] = listed[i + 1] end
  local first = told.length > 0 and told['recorded-first-entry-id'] or ''
  return first, told['last-generated-id'], told['entries-added']
end

-- rpx_heartbeat_v2  ARGV: gateway, now, the gateway's books as JSON.  Returns {the
-- catalogue's version or '', was the gateway known 0|1, `born`, and what stream_ends
-- returns}. Another `born` than with the last beat: Redis was emptied since. That holds
-- even if the answer to a beat in between was lost, unlike `known`.
local function heartbeat_and_books(keys, args)
  local version = redis.call('GET', TAG .. 'catalogue:version')
  if not version then return { '', 0, '', '', '0-0', 0 } end
  local now = clock(args[2])
  local added = redis.call('ZADD', TAG .. 'gateways', now, args[1])
  if args[3] ~= '' then
    redis.call('HSET', TAG .. 'reports', args[1], string.format('%.0f|%s', now, args[3]))
  end
  local born = redis.call('GET', TAG .. 'born') or ''
  return { version, 1 - added, born, stream_ends(keys[2]) }
end

-- rpx_resume_v1  ARGV: gateway, then triples of request, resource, lease record.
-- Puts back leases of requests that are still running. Returns how many.
local function resume(_, args)
  local known, touched, restored = current(), {}, 0
  for i = 2, #args, 3 do
    local resource = known and known.by_id[args[i + 1]]
    if resource then
      local field = field_of(args[1], args[i])
      restored = restored + redis.call('HSETNX', resource.leases, field, args[i + 2])
      touched[resource.id] = true
    end
  end
  for id in pairs(touched) do reweigh(known, id) end
  return restored
end

-- rpx_adopt_v1  ARGV: session ttl ms, id ttl ms, ttl ms of what nobody knows, now,
-- then pairs of "session:<digest>" or "bound:<digest>" and "resource|account|tenant"
-- or "-". What is there already is newer, unless a version before tenants wrote it.
-- Returns how many were new.
local function adopt(_, args)
  local fresh, now = 0, clock(args[4])
  for i = 5, #args, 2 do
    local name, owner = args[i], args[i + 1]
    local session = string.match(name, '^session:(.*)$')
    local ttl = owner == UNKNOWN and args[3] or (session and args[1] or args[2])
    local there = redis.call('GET', TAG .. name)
    local poor = there and (there == UNKNOWN or not tenant_of(there))
    if not there or (poor and owner ~= UNKNOWN) then
      redis.call('SET', TAG .. name, owner, 'PX', ttl)
      if session and owner ~= UNKNOWN then
        redis.call('ZADD', TAG .. 'sessions', now + tonumber(ttl), session)
      end
      fresh = fresh + 1
    end
  end
  make_room(fresh, now)
  return fresh
end

-- rpx_abandon_v1  ARGV: gateway, requests.  Drops leases the gateway no longer
-- knows (an acquire whose answer was lost). Returns how many.
local function abandon(_, args)
  local known, dropped = current(), 0
  for i = 2, #args do
    local held = drop_lease(known, '', field_of(args[1], args[i]))
    if held then
      reweigh(known, held)
      dropped = dropped + 1
    end
  end
  return dropped
end

-- rpx_held_v1  ARGV: gateway.  Returns the requests whose leases it holds.
local function held(_, args)
  local found, prefix = {}, args[1] .. '/'
  for _, id in ipairs(every_holder(current())) do
    for _, field in ipairs(redis.call('HKEYS', leases_of(id))) do
      if string.sub(field, 1, #prefix) == prefix then
        found[#found + 1] = string.sub(field, #prefix + 1)
      end
    end
  end
  return found
end

local function end_lease(stream, now, known, id, field, record)
  local request = string.match(field, '/([^/]*)$')
  redis.call('HDEL', leases_of(id), field)
  local resource = known and known.by_id[id]
  if resource then
    -- A trial dies with its gateway.
    judge(stream, now, resource, read_health(resource), { kind = 'neutral' }, request)
  end
  emit(stream, 'request', request, string.format(
    '%s,"completed_at_ms":%.0f,"outcome":"interrupted","error_code":"gateway_lost",'
    .. '"error_message":"The gateway that served this request stopped answering."}',
    string.sub(record, 1, -2), now))
end

-- The last word of a gateway that is silent goes to SQL.
local function pass_on_report(stream, gateway)
  local report = redis.call('HGET', TAG .. 'reports', gateway)
  if not report then return end
  local at, books = string.match(report, '^(%d+)|(.*)$')
  emit(stream, 'gateway', gateway .. ':' .. at, books)
  redis.call('HDEL', TAG .. 'reports', gateway)
end

-- rpx_reap_v1  ARGV: silent ms, now, look for strays 0|1.  Ends the leases of
-- gateways that have not been heard of for that long; one `interrupted` request
-- event each, and one `gateway` event with the last that it reported of its books. A stray is a lease of a gateway that never beat since it was reaped:
-- it gets the same time from now on. Returns how many leases ended.
local function reap(keys, args)
  local known, now, strays = current(), clock(args[2]), args[3] == '1'
  local silent, is_silent, reaped = {}, {}, 0
  silent = redis.call('ZRANGEBYSCORE', TAG .. 'gateways', '-inf', now - tonumber(args[1]))
  for _, gateway in ipairs(silent) do is_silent[gateway] = true end
  if strays or #silent > 0 then
    for _, id in ipairs(every_holder(known)) do
      local leases, touched = redis.call('HGETALL', leases_of(id)), false
      for i = 1, #leases, 2 do
        local gateway = string.match(leases[i], '^(.*)/[^/]*$')
        if is_silent[gateway] then
          end_lease(keys[2], now, known, id, leases[i], leases[i + 1])
          reaped, touched = reaped + 1, true
        elseif strays then
          redis.call('ZADD', TAG .. 'gateways', 'NX', now, gateway)
        end
      end
      if touched then reweigh(known, id) end
    end
  end
  for _, gateway in ipairs(silent) do pass_on_report(keys[2], gateway) end
  if #silent > 0 then redis.call('ZREM', TAG .. 'gateways', unpack(silent)) end
  redis.call('ZREMRANGEBYSCORE', TAG .. 'sessions', '-inf', now)
  redis.call('ZREMRANGEBYSCORE', TAG .. 'pauses', '-inf', now - MEMORY_MS)
  return reaped
end

-- Checks, catalogue, state ---------------------------------------------------

-- rpx_verdict_v1  ARGV: resource, kind, cause, cooldown ms, latency ms or '', now.
-- A health check's finding. Returns {state before, state after}, or {} when
-- the resource is unknown.
local function verdict(keys, args)
  local known = current()
  local resource = known and known.by_id[args[1]]
  if not resource then return {} end
  local health, now = read_health(resource), clock(args[6])
  local found = { kind = args[2], cause = args[3], cooldown_ms = tonumber(args[4]) }
  local after = judge(keys[2], now, resource, health, found, 'probe')
  local fields = { 'checked_at', now }
  if args[5] ~= '' then
    fields[3], fields[4] = 'latency_ms', args[5]
  end
  if found.kind ~= 'ok' and found.kind ~= 'neutral' then
    fields[#fields + 1], fields[#fields + 2] = 'last_error', found.cause
  end
  redis.call('HSET', resource.health, unpack(fields))
  return { health.state, after }
end

-- rpx_account_v1  ARGV: resource, account.  An upstream told by its headers which
-- account a key is of. Returns 1 when that is news.
local function account(_, args)
  local before = redis.call('HGET', TAG .. 'accounts', args[1])
  if before == args[2] then return 0 end
  redis.call('HSET', TAG .. 'accounts', args[1], args[2])
  return 1
end

-- Resources that went, and new keys or addresses, which start with a clean record.
local function forget(before, after)
  for _, ranking in pairs(before.rankings) do redis.call('DEL', ranking) end
  for _, old in ipairs(before.list) do
    local new = after.by_id[old.id]
    if not new or new.credential ~= old.credential or new.base_url ~= old.base_url then
      redis.call('DEL', old.health)
    end
    if not new and redis.call('HLEN', old.leases) > 0 then
      redis.call('SADD', TAG .. 'retired', old.id)
    end
  end
end

-- rpx_publish_v1  ARGV: version, catalogue JSON, event id, registry event JSON.
-- Returns 1, or 0 when that version was there already.
local function publish(keys, args)
  local before = current()
  if before and before.version == args[1] then return 0 end
  local after = index(args[2], args[1])
  if before then forget(before, after) end
  redis.call('DEL', TAG .. 'unproven')
  redis.call('SET', TAG .. 'born', string.format('%.0f', clock('')), 'NX')
  redis.call('SET', TAG .. 'catalogue', args[2])
  redis.call('SET', TAG .. 'catalogue:version', args[1])
  cached = after
  for _, resource in ipairs(after.list) do
    redis.call('SREM', TAG .. 'retired', resource.id)
    local health = read_health(resource)
    if health.state == 'unhealthy' then
      rank(resource, NEVER)
    elseif health.state == 'degraded' then
      rank(resource, health.until_ms)
    else
      if health.state == 'unknown' then redis.call('SADD', TAG .. 'unproven', resource.id) end
      rank_by_load(resource)
    end
  end
  emit(keys[2], 'registry', args[3], args[4])
  return 1
end

-- Pauses of models that still run: resource -> list of {model, until}.
local function paused_models(now)
  local by_resource = {}
  for _, digest in ipairs(redis.call('ZRANGEBYSCORE', TAG .. 'pauses', now, '+inf')) do
    local pauses = read_pauses(redis.call('GET', TAG .. 'pauses:' .. digest))
    for id, circuit in pairs(pauses or {}) do
      if circuit.until_ms > now then
        by_resource[id] = by_resource[id] or {}
        table.insert(by_resource[id], { model = circuit.model, until_ms = circuit.until_ms })
      end
    end
  end
  return by_resource
end

-- rpx_states_v1  ARGV: now.  Returns JSON: for each resource its health hash, in
-- flight and paused models.
local function states(_, args)
  local known = current()
  if not known then return { 'no_catalogue' } end
  local out, paused = {}, paused_models(clock(args[1]))
  for _, resource in ipairs(known.list) do
    local fields = redis.call('HGETALL', resource.health)
    local row = {
      id = resource.id, in_flight = redis.call('HLEN', resource.leases),
      paused = paused[resource.id],
    }
    for i = 1, #fields, 2 do row[fields[i]] = fields[i + 1] end
    out[#out + 1] = row
  end
  if #out == 0 then return { 'ok', '[]' } end
  return { 'ok', cjson.encode(out) }
end

-- Sockets --------------------------------------------------------------------

-- May the asker of a pin or a check name its ids? What read_ask and acquire do, for
-- the arguments from `first` on: whether SQL was asked for unknown ids 0|1, the tenant
-- that asks or '', strict 0|1, kinds of the ids as in acquire_v2, the ids' digests.
local function checked(args, first)
  local count = #args - first - 3
  if count < 1 then return nil end
  local names = {}
  for i = 1, count do names[i] = TAG .. 'bound:' .. args[first + 3 + i] end
  local why, which, unsought = foreign_id({
    resolved = args[first] == '1', tenant = args[first + 1], strict = args[first + 2] == '1',
    kinds = args[first + 3], count = count, ids = redis.call('MGET', unpack(names)),
  })
  if why then return { why, tostring(which) } end
  return unsought and { 'look_up', age() } or nil
end

-- rpx_check_v1  ARGV: see above.  Returns {} or as acquire does {'foreign_id'|
--   'unknown_id', which id} or {'look_up', age}.
local function check(_, args)
  return checked(args, 1) or {}
end

-- rpx_pin_v2  ARGV: gateway, request, attempt, decision id, resource, head of the
--   decision event or '' when it was written already, head of the lease record,
--   resource that holds this request's lease or '' (so far as v1, which a gateway before
--   tenants calls), what `checked` takes.
-- A request that came on a socket goes where the socket goes, whatever the
-- resource's load and health: takes a lease there. Returns the catalogue's version,
-- or {'no_catalogue'}, or {'owner_gone'}: the resource is not in it, or as acquire does
-- {'foreign_id'|'unknown_id', which id} or {'look_up', age}.
local function pin(keys, args)
  local known = current()
  if not known then return { 'no_catalogue' } end
  local resource = known.by_id[args[5]]
  if not resource then return { 'owner_gone' } end
  local refused = checked(args, 9)
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

redis.register_function('rpx_acquire_v1', acquire_for_anybody)
redis.register_function('rpx_acquire_v2', acquire_for_tenant)
redis.register_function { function_name = 'rpx_explain_v1', callback = explain, flags = { 'no-writes' } }
redis.register_function('rpx_release_v1', release_for_anybody)
redis.register_function('rpx_release_v2', release_for_tenant)
redis.register_function('rpx_heartbeat_v1', heartbeat)
redis.register_function('rpx_heartbeat_v2', heartbeat_and_books)
redis.register_function('rpx_resume_v1', resume)
redis.register_function('rpx_adopt_v1', adopt)
redis.register_function('rpx_abandon_v1', abandon)
redis.register_function('rpx_held_v1', held)
redis.register_function('rpx_reap_v1', reap)
redis.register_function('rpx_verdict_v1', verdict)
redis.register_function('rpx_account_v1', account)
redis.register_function('rpx_publish_v1', publish)
redis.register_function('rpx_states_v1', states)
redis.register_function('rpx_pin_v1', pin)
redis.register_function('rpx_pin_v2', pin)
redis.register_function {
  function_name = 'rpx_check_v1', callback = check, flags = { 'no-writes' },
}

-- Proxy keys -----------------------------------------------------------------

-- rpx_keys_v1  KEYS: 1 proxy_keys:version.  ARGV: the version that the caller saw or
--   '', number of hashes that go, those hashes, then pairs of hash, record.
-- Changes the table, if nobody else did since the caller looked: what it read in SQL
-- after that is at least as new as what is here. Returns the new version, else ''.
-- Versions begin with the clock, so that none comes twice when Redis was emptied.
local function change_keys(keys, args)
  local version, records = redis.call('GET', keys[1]), TAG .. 'proxy_keys'
  if (version or '') ~= args[1] then return '' end
  if not version then redis.call('DEL', records) end
  local gone = tonumber(args[2])
  for i = 3, 2 + gone do redis.call('HDEL', records, args[i]) end
  -- In parts: the stack holds no ten thousand arguments.
  for i = 3 + gone, #args, 1000 do
    redis.call('HSET', records, unpack(args, i, math.min(i + 999, #args)))
  end
  local after = version and tonumber(version) + 1 or clock('')
  redis.call('SET', keys[1], string.format('%.0f', after))
  return string.format('%.0f', after)
end

-- rpx_limits_v1  KEYS: 1 spent:<key id>.  ARGV: key id, requests per minute or '',
--   tokens per minute or '', now.  Counts a request within its key's limits: returns
--   {}. Else {'requests'|'tokens', ms to wait}, and nothing is counted.
local function limits(_, args)
  local which, wait = within_limits(args[1], args[2], args[3], clock(args[4]))
  return which and { which, wait } or {}
end

-- rpx_spend_v1  KEYS: 1 spent:<key id>.  ARGV: key id, tokens of an answer, now.
local function spend(_, args)
  count_tokens(args[1], tonumber(args[2]), clock(args[3]))
  return 1
end

redis.register_function('rpx_keys_v1', change_keys)
redis.register_function('rpx_limits_v1', limits)
redis.register_function('rpx_spend_v1', spend)
