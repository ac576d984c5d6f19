-- Circuit breakers: of a resource as a whole, and of one model on it.
--
-- Keys read:    health:<res>, pauses, pauses:<model>, leases:<res>
-- Keys written: health:<res>, pauses, pauses:<model>, unproven, ranking:<pool>,
--               the telemetry stream
--
-- A report (`said`) has: stream, now, by (the request that it is about, or 'probe'), and
-- a verdict as libs/common/upstream_answers/verdicts.py defines it: kind, cause, cooldown_ms.

local FAULTS_IN_A_ROW = 3  -- open the circuit
local COOLDOWN_CAP = 16    -- repeated failures double the cooldown up to this factor
local TRIAL_MS = 30000     -- after which a half-open trial without a report is over
local MEMORY_MS = 600000   -- a model's cooldown is remembered this long after its end
local MOST_COOLING = 1000  -- models in cooldown or remembered

local function available(state)
  return state ~= 'degraded' and state ~= 'unhealthy'
end

local function state_of(resource)
  return call('HGET', resource.health, 'state') or 'unknown'
end

local function read_health(resource)
  local h = call('HMGET', resource.health, 'state', 'until', 'failures', 'pauses',
    'trial', 'cause', 'requests', 'errors', 'retry_at')
  return {
    state = h[1] or 'unknown', until_ms = tonumber(h[2] or 0),
    failures = tonumber(h[3] or 0), cooldowns = tonumber(h[4] or 0), trial = h[5] or '',
    cause = h[6] or '', requests = tonumber(h[7] or 0), errors = tonumber(h[8] or 0),
    retry_at = tonumber(h[9] or 0),
  }
end

-- A failure after a cooldown doubles the next one. A failure during it (responses that
-- were under way, checks, panic) does not. The later deadline wins, so a shorter
-- cooldown never ends a longer one.
local function cooldown_factor(during, cooldowns)
  return during and 1 or math.min(2 ^ cooldowns, COOLDOWN_CAP)
end

local function lengthen(circuit, said, count)
  local during, cooldowns = circuit.until_ms > said.now, circuit[count]
  local ms = said.cooldown_ms * cooldown_factor(during, cooldowns)
  circuit.until_ms = math.max(circuit.until_ms, said.now + ms)
  if not during then circuit[count] = cooldowns + 1 end
  circuit.trial = ''
end

local function cool_down(said, resource, health)
  lengthen(health, said, 'cooldowns')
  call('HSET', resource.health, 'state', 'degraded', 'until', health.until_ms,
    'cause', said.cause, 'failures', 0, 'pauses', health.cooldowns, 'trial', '')
  rank(resource, health.until_ms)
  transition(said, resource, health.state, 'degraded', said.cause, health.until_ms)
  return 'degraded'
end

local function recover(said, resource, health)
  call('HSET', resource.health, 'state', 'healthy', 'until', 0, 'cause', '',
    'failures', 0, 'pauses', 0, 'trial', '', 'retry_at', 0)
  call('SREM', TAG .. 'unproven', resource.id)
  rank_by_load(resource)
  transition(said, resource, health.state, 'healthy', 'ok', nil)
  return 'healthy'
end

-- The key was refused, or has no credit left. A check of /models passes without credit,
-- so after a check one request tries the key, at `retry_at` at the earliest.
local function shut(said, resource, health)
  local retry_at, cooldowns = 0, health.cooldowns
  if said.kind == 'exhausted' then
    local during = health.state == 'unhealthy'
    local ms = said.cooldown_ms * cooldown_factor(during, cooldowns)
    retry_at = math.max(health.retry_at, said.now + ms)
    if not during then cooldowns = cooldowns + 1 end
  end
  call('HSET', resource.health, 'state', 'unhealthy', 'until', NEVER, 'cause',
    said.cause, 'failures', 0, 'pauses', cooldowns, 'trial', '', 'retry_at', retry_at)
  rank(resource, NEVER)
  transition(said, resource, health.state, 'unhealthy', said.cause, NEVER)
  return 'unhealthy'
end

local function half_open(said, resource, health)
  local until_ms = math.max(said.now, health.retry_at)
  call('HSET', resource.health, 'state', 'degraded', 'until', until_ms)
  rank(resource, until_ms)
  transition(said, resource, health.state, 'degraded', health.cause, until_ms)
  return 'degraded'
end

local function succeed(said, resource, health)
  local state, checked = health.state, said.by == 'probe'
  if state == 'healthy' and health.failures == 0 then return state end
  if state == 'unhealthy' then
    if not checked then return state end  -- was under way before the refusal
    if health.retry_at > 0 then return half_open(said, resource, health) end
  elseif state == 'degraded' then
    -- A response that was under way before the cooldown began does not end it. A check
    -- does not prove that there is credit.
    local on_trial = health.trial ~= '' and health.trial == said.by
    if health.until_ms > said.now and not on_trial then return state end
    if checked and health.retry_at > 0 then return state end
  end
  return recover(said, resource, health)
end

-- Applies a report to the circuit of a resource. `of_model`: the cooldown is the
-- model's and was recorded there. Returns the resulting state.
local function judge(said, resource, health, of_model)
  local kind = said.kind
  if kind == 'ok' then return succeed(said, resource, health) end
  if kind == 'refused' or kind == 'exhausted' then return shut(said, resource, health) end
  if health.state == 'unhealthy' then return health.state end
  local on_trial = health.trial ~= '' and health.trial == said.by
  if kind == 'limited' and not of_model then
    return cool_down(said, resource, health)
  elseif kind == 'fault' then
    if on_trial or health.failures + 1 >= FAULTS_IN_A_ROW then
      return cool_down(said, resource, health)
    end
    call('HSET', resource.health, 'failures', health.failures + 1)
  elseif on_trial then
    -- The trial proved nothing (the client left, the request was invalid, or only its
    -- model is limited). The next request is a trial too.
    call('HSET', resource.health, 'trial', '')
    rank(resource, said.now)
  end
  return health.state
end

-- Models -----------------------------------------------------------------------------

-- Returns resource -> cooldown, or nil. cjson encodes an empty table as an array, and
-- decodes that to an empty table.
local function read_cooldowns(document)
  return document and cjson.decode(document) or nil
end

local function write_cooldowns(digest, cooldowns, now)
  local key, latest = TAG .. 'pauses:' .. digest, nil
  for _, circuit in pairs(cooldowns) do
    latest = math.max(latest or 0, circuit.until_ms, circuit.trial_until or 0)
  end
  if not latest then
    call('DEL', key)
    call('ZREM', TAG .. 'pauses', digest)
    return
  end
  local keep_ms = math.max(latest - now, 0) + MEMORY_MS
  call('SET', key, cjson.encode(cooldowns), 'PX', string.format('%.0f', keep_ms))
  -- Clients choose model names, so their number is bounded: the cooldown that ends
  -- first is dropped.
  if call('ZADD', TAG .. 'pauses', latest, digest) == 1
    and call('ZCARD', TAG .. 'pauses') > MOST_COOLING then
    call('DEL', TAG .. 'pauses:' .. call('ZPOPMIN', TAG .. 'pauses')[1])
  end
end

-- Gives the other resources of an account the trial of a circuit that they share.
local function share_circuit(siblings, cooldowns, circuit)
  if not circuit.shared then return end
  for _, id in ipairs(siblings) do
    local other = cooldowns[id]
    if other and other.shared then
      other.trial, other.trial_until = circuit.trial, circuit.trial_until
    end
  end
end

-- A cooldown of an account: no other resource of it is tried before.
local function cool_siblings(said, cooldowns, circuit)
  circuit.shared = true
  for _, id in ipairs(said.siblings) do
    local other = cooldowns[id]
    if id ~= said.resource and not (other and other.until_ms > circuit.until_ms) then
      cooldowns[id] = {
        until_ms = circuit.until_ms, pauses = circuit.pauses, trial = '',
        model = circuit.model, cause = circuit.cause, shared = true,
      }
      transition(said, said.known.by_id[id], other and 'degraded' or 'healthy', 'degraded',
        said.cause, circuit.until_ms, cjson.encode(said.model_name))
    end
  end
end

-- Ends the cooldown of a model on a resource, or all that its account shares.
local function end_cooldown(said, resource, cooldowns, circuit)
  local function over(of)
    cooldowns[of.id] = nil
    transition(said, of, 'degraded', 'healthy', 'ok', nil, cjson.encode(circuit.model))
  end
  over(resource)
  local siblings = circuit.shared and said.known.accounts[resource.account_id] or {}
  for _, id in ipairs(siblings) do
    if cooldowns[id] and cooldowns[id].shared then over(said.known.by_id[id]) end
  end
end

-- Applies a report to the circuit of the request's model (said.model: its digest,
-- said.model_name). Returns whether the verdict was a cooldown of this model.
local function judge_model(said, resource, cooldowns)
  local kind, circuit = said.kind, cooldowns and cooldowns[resource.id]
  local on_trial = circuit and circuit.trial ~= '' and circuit.trial == said.by
  if kind == 'limited' or (kind == 'fault' and on_trial) then
    local before = circuit and 'degraded' or 'healthy'
    circuit = circuit or { until_ms = 0, pauses = 0, trial = '', model = said.model_name }
    cooldowns = cooldowns or {}
    lengthen(circuit, said, 'pauses')
    circuit.trial_until, circuit.cause = nil, said.cause
    share_circuit(said.known.accounts[resource.account_id], cooldowns, circuit)
    cooldowns[resource.id], circuit.shared = circuit, nil
    if kind == 'limited' and said.siblings then cool_siblings(said, cooldowns, circuit) end
    transition(said, resource, before, 'degraded', said.cause, circuit.until_ms,
      cjson.encode(said.model_name))
  elseif not circuit then
    return false
  elseif kind == 'ok' and (on_trial or circuit.until_ms <= said.now) then
    end_cooldown(said, resource, cooldowns, circuit)
  elseif on_trial and kind ~= 'ok' then
    circuit.trial, circuit.trial_until = '', nil
    share_circuit(said.known.accounts[resource.account_id], cooldowns, circuit)
  else
    return false
  end
  write_cooldowns(said.model, cooldowns, said.now)
  return kind == 'limited'
end

-- Functions --------------------------------------------------------------------------

-- verdict_v1  ARGV: resource, kind, cause, cooldown ms, latency ms or '', now.
-- Applies the verdict of a health check. Returns {state before, state after}, or {} for
-- an unknown resource.
local function verdict(keys, args)
  local known = current()
  local resource = known and known.by_id[args[1]]
  if not resource then return {} end
  local health = read_health(resource)
  local said = {
    stream = keys[2], now = clock(args[6]), by = 'probe',
    kind = args[2], cause = args[3], cooldown_ms = tonumber(args[4]),
  }
  local after = judge(said, resource, health)
  local fields = { 'checked_at', said.now }
  if args[5] ~= '' then
    fields[3], fields[4] = 'latency_ms', args[5]
  end
  if said.kind ~= 'ok' and said.kind ~= 'neutral' then
    fields[#fields + 1], fields[#fields + 2] = 'last_error', said.cause
  end
  call('HSET', resource.health, unpack(fields))
  return { health.state, after }
end

-- Returns resource -> list of its models in cooldown: {model, until_ms}.
local function cooling_models(now)
  local by_resource = {}
  for _, digest in ipairs(call('ZRANGEBYSCORE', TAG .. 'pauses', now, '+inf')) do
    local cooldowns = read_cooldowns(call('GET', TAG .. 'pauses:' .. digest))
    for id, circuit in pairs(cooldowns or {}) do
      if circuit.until_ms > now then
        by_resource[id] = by_resource[id] or {}
        table.insert(by_resource[id], { model = circuit.model, until_ms = circuit.until_ms })
      end
    end
  end
  return by_resource
end

-- states_v1  ARGV: now.  Returns {'ok', JSON: for each resource its health hash,
-- in_flight and `paused`, its models in cooldown}, or {'no_catalogue'}.
local function states(_, args)
  local known = current()
  if not known then return { 'no_catalogue' } end
  local now = clock(args[1])
  local out, cooling, limits = {}, cooling_models(now), known_limits(now)
  for _, resource in ipairs(known.list) do
    local fields = call('HGETALL', resource.health)
    local row = {
      id = resource.id, in_flight = call('HLEN', resource.leases),
      paused = cooling[resource.id], limits = limits[resource.account_id],
    }
    for i = 1, #fields, 2 do row[fields[i]] = fields[i + 1] end
    out[#out + 1] = row
  end
  if #out == 0 then return { 'ok', '[]' } end
  return { 'ok', cjson.encode(out) }
end
