-- Limits per minute and budgets of keys and teams, inside acquire and release.
--
-- Keys read:    spent:<key id>, reserved:<subject>, recount:<subject>, leases:<res>, retired
-- Keys written: spent:<key id>, reserved:<subject>, recount:<subject>, recounts,
--               reserving, the telemetry stream
--
-- docs/budgets.md explains the rules; libs/common/routing/budgets.py are the same in
-- Python. Money is in billionths of a dollar. A subject is `key:<id>` or `team:<id>`.
-- What is counted is in this library's memory: writing it for each request would cost
-- ten times as much. What is lost with that memory (Redis restarts, fails over, or gets a
-- new library) is counts of the minute since they were written last, at most five
-- seconds; budgets the router then sums anew from SQL and the stream. The release that
-- publishes a request event counts it, so both happen once. What may have been counted
-- before (events that are sent again) is not added, but summed anew.

do  -- a scope of its own: a chunk has at most 200 local names

local QUOTAS_KEPT = 4096
local SUBJECTS_KEPT = 100000
local UNSURE, KNOWN, RECOUNTING = 0, 1, 2
local SWEPT = 20      -- reservations that are looked at together
local LOOKUPS = 3000  -- of leases in one call: half a millisecond
local OF_CALL = 10    -- lookups in the time that asking a resource takes
local OF_RECORD = 4   -- lookups in the time in which a record is read
local LET_GO = 20     -- lookups in the time in which a reservation ends
local LOGGED_MS = 1800000  -- SQL keeps the log of other shards for longer
-- What keys' limits are, by id and by their JSON. Those that were not used since are in
-- `older`.
local quotas, older, quotas_kept = {}, {}, 0
-- By key id: counts of the last minute as limits.lua has them; requests and tokens: their
-- sums, to which the newest slot is added by `settle`; others, other_tokens: without it;
-- ends: the newest slot's end as text, empty before the counts were written in it.
local minutes, minutes_kept = {}, 0
-- By subject: kind, starts, ends (the window), tokens, nanos (spent in it), reserved
-- (what running requests may use), sure, level (the threshold that was reported: 0 none,
-- 1 soft, 2 limit), reserves, since (identifies the doubt), counted (up to which row of
-- SQL's log the sum has what other shards spent), resent (how many events were sent again),
-- told (how many of them a router of the version before knows).
local spends, spends_kept = {}, 0
-- What was looked up for a quota (`spent`; `first` and `second`: the states of its
-- budgets; `only`: the first if there is no other) holds while its `epoch` is this one: until a state is replaced, is in doubt or
-- has passed a threshold. So most requests look up nothing but their quota.
local epoch = 0
-- Up to which row of that log their spend is added, and when it was; nil: not at all.
local others_seen, others_at = nil, 0
local pack = nil  -- struct.pack, which is not there when the library is loaded

local function keep(quota)
  if quotas_kept >= QUOTAS_KEPT then quotas, older, quotas_kept = {}, quotas, 0 end
  quotas[quota.id], quotas[quota.text], quotas_kept = quota, quota, quotas_kept + 1
  return quota
end

-- Returns limits by their id or JSON, or nil.
local function known_quota(name)
  return quotas[name] or older[name] and keep(older[name])
end

-- Returns what a key's limits are, decoded: as libs/common/routing/budgets.py encodes
-- them.
local function quota_of(text)
  local quota = known_quota(text)
  if quota then return quota end
  quota = cjson.decode(text)
  for _, budget in ipairs(quota.budgets) do
    quota.reserves = quota.reserves or budget.reserve
    budget.most_tokens, budget.most_nanos = budget.tokens or math.huge, budget.nanos or math.huge
    budget.soft_tokens = budget.most_tokens * budget.soft / 100
    budget.soft_nanos = budget.most_nanos * budget.soft / 100
  end
  quota.text, quota.amount, quota.epoch = text, 0, false
  quota.most_requests, quota.most_tokens = quota.rpm or math.huge, quota.tpm or math.huge
  quota.count, quota.minute = #quota.budgets, quota.rpm or quota.tpm
  return keep(quota)
end

-- Redis has no content that what is in memory could belong to.
function budgets.forget()
  minutes, minutes_kept, spends, spends_kept = {}, 0, {}, 0
  epoch, others_seen = epoch + 1, nil
end

-- Limits per minute -------------------------------------------------------------------

-- Puts what was counted into the newest slot. A request changes only the sums.
local function settle(spent)
  local place = 2 + spent[1] % SLOTS
  spent[place] = spent.requests - spent.others
  spent[place + SLOTS] = spent.tokens - spent.other_tokens
end

-- Returns the counts of a key in the last minute, by the time `now`.
function budgets.minute(key, now)
  local spent, slot = minutes[key], math.floor(now / SLOT_MS)
  if spent then
    settle(spent)
    if spent[1] >= slot then return spent end
  else
    if minutes_kept >= SUBJECTS_KEPT then minutes, minutes_kept = {}, 0 end
    minutes_kept, epoch = minutes_kept + 1, epoch + 1
    local packed = call('GET', TAG .. 'spent:' .. key)
    spent = packed and cmsgpack.unpack(packed)
  end
  local rolled = roll_spent(spent, slot)
  if rolled ~= spent then spent, epoch = rolled, epoch + 1 end
  local requests, tokens, newest = 0, 0, 2 + spent[1] % SLOTS
  for i = 2, SLOTS + 1 do
    requests, tokens = requests + spent[i], tokens + spent[i + SLOTS]
  end
  spent.requests, spent.tokens, spent.ends = requests, tokens, ''
  spent.others, spent.other_tokens = requests - spent[newest], tokens - spent[newest + SLOTS]
  minutes[key] = spent
  return spent
end

-- Counts requests and tokens in the newest slot. Writes them once in a slot.
function budgets.count(key, spent, requests, tokens)
  spent.requests, spent.tokens = spent.requests + requests, spent.tokens + tokens
  if spent.ends == '' then
    spent.ends = string.format('%.0f', (spent[1] + 1) * SLOT_MS)
    settle(spent)
    write_spent(TAG .. 'spent:' .. key, spent)
  end
end

-- The same at the time of an entry in the stream, whose id begins with it. `entry`: nil
-- without one. Returns the counts.
local function count_at(quota, requests, tokens, entry, now)
  if now == '' and entry then now = string.sub(entry, 1, 13) end
  local spent = budgets.minute(quota.key, clock(now))
  budgets.count(quota.key, spent, requests, tokens)
  return spent
end

-- Returns which limit per minute is reached and the ms to wait, or nil.
local function reached(quota, now)
  local spent = budgets.minute(quota.key, now)
  if quota.rpm and spent.requests >= quota.rpm then
    local wait = wait_for(spent, 1, quota.rpm, now)
    if wait > 0 then return 'requests', wait end
  end
  if quota.tpm and spent.tokens >= quota.tpm then
    local wait = wait_for(spent, 1 + SLOTS, quota.tpm, now)
    if wait > 0 then return 'tokens', wait end
  end
end

-- Budgets -----------------------------------------------------------------------------

-- Identifies a doubt: no two calls have the same microsecond.
local function microseconds()
  local t = call('TIME')
  return t[1] * 1000000 + t[2]
end

local function fresh(budget, sure)
  return {
    kind = budget.kind, starts = budget.starts, ends = budget.ends, tokens = 0, nanos = 0,
    reserved = 0, sure = sure, level = 0, reserves = budget.reserve and 1 or 0,
    since = sure == KNOWN and 0 or microseconds(), resent = 0, told = 0,
    -- The next thresholds of limits that were compared with it.
    bar_tokens = math.huge, bar_nanos = math.huge,
  }
end

local function want_recount(subject)
  call('SADD', TAG .. 'recounts', subject)
end

-- Adds the reservations of a window that memory lost.
local function load_reserved(subject, state)
  for _, held in ipairs(call('HVALS', TAG .. 'reserved:' .. subject)) do
    local start, amount = string.match(held, '^(%d+) (%d+)$')
    if tonumber(start) == state.starts then
      state.reserved = state.reserved + tonumber(amount)
    end
  end
end

local function begin_window(budget, state)
  local subject, sure = budget.subject, UNSURE
  -- A window that follows one of which all is known begins with nothing spent.
  if state and state.kind == budget.kind and state.sure == KNOWN
      and budget.starts >= state.ends then
    sure = KNOWN
  end
  if not state then
    if spends_kept >= SUBJECTS_KEPT then spends, spends_kept = {}, 0 end
    spends_kept = spends_kept + 1
  end
  state = fresh(budget, sure)
  if sure == UNSURE then
    call('DEL', TAG .. 'recount:' .. subject)
    want_recount(subject)
  end
  if budget.reserve then load_reserved(subject, state) end
  spends[subject], epoch = state, epoch + 1
  return state
end

-- Returns the state of a budget in the window that `budget` names, or in a later one.
function budgets.current(budget)
  local state = spends[budget.subject]
  if state and state.starts >= budget.starts and state.kind == budget.kind then
    return state
  end
  return begin_window(budget, state)
end

-- Returns `tokens` or `usd` if that much is spent, else nil.
local function exhausted(budget, state)
  if budget.tokens and state.tokens >= budget.tokens then return 'tokens' end
  if budget.nanos and state.nanos >= budget.nanos then return 'usd' end
end

-- Returns the refusal of a request that may use up to `amount` tokens, or nil.
-- `in_spite`: although it is not known what was spent.
function budgets.refusal(budget, state, amount, in_spite)
  if state.sure == UNSURE or (state.sure == RECOUNTING and budget.reserve) then
    if not in_spite then return { 'spend_unknown', budget.subject } end
  end
  local which = exhausted(budget, state)
  if which then return { 'budget_spent', budget.subject, which } end
  if budget.reserve and budget.tokens then
    if state.tokens + amount > budget.tokens then
      return { 'budget_spent', budget.subject, 'rest', budget.tokens - state.tokens }
    end
    if state.tokens + state.reserved + amount > budget.tokens then
      return { 'budget_reserved', budget.subject }
    end
  end
end

-- Tells in the stream that a threshold was passed for the first time in the window.
local function report(stream, budget, state, now)
  local level = exhausted(budget, state) and 2 or 1
  if level <= state.level or state.tokens < budget.soft_tokens
      and state.nanos < budget.soft_nanos then
    return
  end
  state.level = level
  local name = level == 2 and 'exhausted' or 'soft'
  now = clock(now)
  local limits = ''
  if budget.tokens then
    limits = string.format(',"limit_tokens":%.0f', budget.tokens)
  end
  if budget.nanos then
    limits = limits .. string.format(',"limit_nanos":%.0f', budget.nanos)
  end
  emit(stream, 'budget', string.format('%s:%.0f:%s', budget.subject, state.starts, name),
    string.format('{"created_at_ms":%.0f,"subject":%s,"state":"%s","window_start_ms":%.0f,'
      .. '"window_end_ms":%.0f,"tokens":%.0f,"nanos":%.0f%s}', now,
      cjson.encode(budget.subject), name, state.starts, state.ends, state.tokens,
      state.nanos, limits))
end

-- Returns the refusal of a request whose key has these limits, or nil. `asked`: tokens
-- that it may use, with a leading `-` if it is admitted although the spend of a budget is
-- not known. `now`: as the functions get it.
local function refused(stream, quota, asked, now)
  if quota.minute then
    -- What is counted of a minute gets less as time goes on.
    local spent = minutes[quota.key]
    if not spent or spent.requests >= quota.most_requests
        or spent.tokens >= quota.most_tokens then
      local which, wait = reached(quota, clock(now))
      if which then return { 'key_limit', which, wait } end
    end
  end
  local amount, in_spite = 0, false
  if asked ~= '0' then
    amount, in_spite = math.abs(tonumber(asked)), string.byte(asked) == 45
  end
  quota.amount = amount
  local sure = not quota.reserves
  for i = 1, quota.count do
    local budget = quota.budgets[i]
    local state = budgets.current(budget)
    local refusal = budgets.refusal(budget, state, amount, in_spite)
    -- A limit may have been lowered, or passed by events that were summed.
    if refusal and refusal[1] == 'budget_spent' and state.level < 2 then
      report(stream, budget, state, now)
    end
    if refusal then
      -- If their spend is unknown, it is summed at the same time.
      for j = i + 1, quota.count do budgets.current(quota.budgets[j]) end
      return refusal
    end
    sure = sure and state.sure == KNOWN and state.starts == budget.starts
    local soft = state.level < 1  -- is the soft threshold to be told?
    state.bar_tokens = math.min(state.bar_tokens,
      soft and budget.soft_tokens or budget.most_tokens)
    state.bar_nanos = math.min(state.bar_nanos, soft and budget.soft_nanos or budget.most_nanos)
  end
  if sure then
    local first, second = quota.budgets[1], quota.budgets[2]
    quota.spent = quota.minute and minutes[quota.key]
    quota.first = first and spends[first.subject]
    quota.second = second and spends[second.subject]
    quota.only = not second and quota.first
    quota.epoch = epoch
  end
end

-- Takes the id of limits from the place of the owner that SQL returned. If that is empty
-- their JSON is the last argument, and the one before it `asked`. Returns the quota, or
-- nil and the reply to a request that its limits do not allow:
--   {'limits_unknown'}: ask again with the JSON,
--   {'key_limit', 'requests'|'tokens', ms to wait},
--   {'spend_unknown', subject}: ask again soon,
--   {'budget_spent', subject, 'tokens'|'usd'|'rest', for `rest`: tokens that are left},
--   {'budget_reserved', subject}: running requests may use what is left.
function budgets.admit(keys, args)
  local quota, asked = quotas[args[10]], '0'
  if quota and quota.epoch == epoch then
    local spent = quota.spent
    if not spent or spent.requests < quota.most_requests
        and spent.tokens < quota.most_tokens then
      args[10] = ''
      return quota
    end
  end
  quota = quota or known_quota(args[10])
  if quota then
    args[10] = ''
  elseif args[10] == '' then
    local count = #args
    quota, asked = quota_of(args[count]), args[count - 1]
    args[count], args[count - 1] = nil, nil
  else
    return nil, { 'limits_unknown' }
  end
  local refusal = refused(keys[2], quota, asked, args[14])
  if refusal then return nil, refusal end
  return quota
end

local function hold(budget, state, amount, field)
  call('HSET', TAG .. 'reserved:' .. budget.subject, field,
    string.format('%.0f %.0f', state.starts, amount))
  call('SADD', TAG .. 'reserving', budget.subject)
  state.reserved = state.reserved + amount
end

local function hold_all(quota, field)
  for _, budget in ipairs(quota.budgets) do
    if budget.reserve and budget.tokens then
      hold(budget, spends[budget.subject], quota.amount, field)
    end
  end
end

-- Ends the reservation of a request, if it has one.
local function let_go(subject, state, field)
  local reserved = TAG .. 'reserved:' .. subject
  local held = call('HGET', reserved, field)
  if not held then return end
  call('HDEL', reserved, field)
  local start, amount = string.match(held, '^(%d+) (%d+)$')
  if state and tonumber(start) == state.starts then
    state.reserved = math.max(state.reserved - tonumber(amount), 0)
  end
end

-- Returns what was counted, packed: a number as text costs as much as all else here.
-- They are requests and tokens of the minute, then tokens and billionths of a dollar
-- spent in each budget. `l` has eight bytes, and takes less time to read than `i8`.
local function told(requests, tokens, first, second)
  pack = pack or struct.pack
  if not first then return pack('<ll', requests, tokens) end
  if not second then return pack('<llll', requests, tokens, first.tokens, first.nanos) end
  return pack('<llllll', requests, tokens, first.tokens, first.nanos, second.tokens,
    second.nanos)
end

-- Counts a request that was given a lease. `entry`: of its decision in the stream, or
-- nil. Returns what `told` does. Written out for the usual case: a call of a function
-- costs more than what it does.
function budgets.begun(quota, ask, entry)
  local requests, tokens = 0, 0
  if quota.epoch ~= epoch then
    if quota.minute then
      local spent = count_at(quota, 1, 0, entry, ask.now)
      requests, tokens = spent.requests, spent.tokens
    end
    if quota.amount > 0 then hold_all(quota, field_of(ask.gateway, ask.request)) end
    local first, second = quota.budgets[1], quota.budgets[2]
    return told(requests, tokens, first and spends[first.subject],
      second and spends[second.subject])
  end
  local spent = quota.spent
  if spent then
    -- Texts are compared faster than numbers are read.
    if ask.now == '' and entry and entry < spent.ends then
      requests, tokens = spent.requests + 1, spent.tokens
      spent.requests = requests
    else
      local first, second = quota.first, quota.second
      spent = count_at(quota, 1, 0, entry, ask.now)
      return told(spent.requests, spent.tokens, first, second)
    end
  end
  local only = quota.only
  if only and pack then
    return pack('<llll', requests, tokens, only.tokens, only.nanos)
  end
  return told(requests, tokens, quota.first, quota.second)
end

-- While a window is summed anew, each request is noted by its id, when it is published
-- first. `resent`: the number of an event that is sent again, else 0.
local function note(subject, request, tokens, nanos, resent)
  call('HSETNX', TAG .. 'recount:' .. subject, request,
    string.format('%.0f %.0f %.0f', tokens, nanos, resent))
end

-- Reads the limits that a request was admitted with: their id is in the place of the
-- scope, or their JSON behind the tokens and the cost. Returns them, nil for an id that
-- is not known, and the place of the next argument.
function budgets.used(args)
  local quota = known_quota(args[16])
  if quota then
    return quota, 20
  elseif args[16] == '' or args[16] == 'account' then
    return quota_of(args[20]), 21
  end
  return nil, 20
end

-- What is counted in a window is in doubt: the router sums it anew.
local function put_in_doubt(subject, state)
  if state.sure == KNOWN then state.sure = RECOUNTING end
  state.since, epoch = microseconds(), epoch + 1
  want_recount(subject)
end

-- A threshold was passed: limits are compared with this state anew.
local function passed(stream, budget, state, now)
  epoch, state.bar_tokens, state.bar_nanos = epoch + 1, math.huge, math.huge
  report(stream, budget, state, now)
end

local function add(stream, budget, state, tokens, nanos, now)
  tokens, nanos = state.tokens + tokens, state.nanos + nanos
  state.tokens, state.nanos = tokens, nanos
  if tokens >= state.bar_tokens or nanos >= state.bar_nanos then
    passed(stream, budget, state, now)
  elseif tokens >= budget.soft_tokens or nanos >= budget.soft_nanos then
    report(stream, budget, state, now)
  end
end

-- Counts a request that ended. `entry`: of its event in the stream; `quota`: nil if its
-- limits are not known.
function budgets.ended(keys, args, entry, quota, tokens, nanos)
  if not quota then return budgets.ended_unknown(args) end
  local now = args[8]
  if quota.minute and tokens > 0 then count_at(quota, 0, tokens, entry, now) end
  for i = 1, quota.count do
    local budget = quota.budgets[i]
    local state = spends[budget.subject]
    if not state or state.kind == budget.kind then
      state = budgets.current(budget)
    elseif tokens + nanos > 0 then
      -- The kind of the windows was changed while it ran. Its event is in the stream.
      put_in_doubt(budget.subject, state)
    end
    if budget.reserve then let_go(budget.subject, state, field_of(args[1], args[2])) end
    if state.starts == budget.starts and state.kind == budget.kind and tokens + nanos > 0 then
      if state.sure ~= KNOWN then note(budget.subject, args[2], tokens, nanos, 0) end
      add(keys[2], budget, state, tokens, nanos, now)
    end
  end
end

-- The same with the arguments of release_v5. Written out for the usual case, as
-- `begun`.
function budgets.ended_soon(keys, args, entry)
  local quota = quotas[args[16]] or known_quota(args[16])
  -- Arithmetic reads a text faster than `tonumber`.
  local used = args[17] + 0
  local tokens = used % 1048576
  local nanos = (used - tokens) / 1048576
  if not quota or quota.epoch ~= epoch then
    return budgets.ended(keys, args, entry, quota, tokens, nanos)
  end
  local spent, state = quota.spent, quota.only
  if spent then
    if entry < spent.ends and args[8] == '' then
      spent.tokens = spent.tokens + tokens
    else
      count_at(quota, 0, tokens, entry, args[8])
    end
  end
  if state then
    used = state.tokens + tokens
    state.tokens = used
    local cost = nanos > 0 and state.nanos + nanos
    if cost then state.nanos = cost end
    if used >= state.bar_tokens or cost and cost >= state.bar_nanos then
      passed(keys[2], quota.budgets[1], state, args[8])
    end
  elseif quota.second then
    add(keys[2], quota.budgets[1], quota.first, tokens, nanos, args[8])
    add(keys[2], quota.budgets[2], quota.second, tokens, nanos, args[8])
  end
end

-- Events that are sent again -----------------------------------------------------------

local function number_in(event, name)
  local value = event[name]
  return type(value) == 'number' and value > 0 and value or 0
end

-- The event of a request may have been counted before: its window is summed anew.
local function doubt(subject, request, event)
  local state = spends[subject]
  if not state then return end
  local at = event.created_at_ms
  if at < state.starts then return end
  local tokens, nanos = number_in(event, 'total_tokens'), number_in(event, 'cost_nanos')
  if tokens + nanos == 0 then return end
  if at >= state.ends then
    -- The next window does not begin with nothing.
    spends[subject], epoch = nil, epoch + 1
    return
  end
  state.resent = state.resent + 1
  note(subject, request, tokens, nanos, state.resent)
  if state.sure == KNOWN then put_in_doubt(subject, state) end
end

-- Returns a name that is a string in JSON.
local function named(value)
  return type(value) == 'string' and value or nil
end

-- resend_v1  ARGV: kind, id, event (JSON).
-- Emits an event that was sent before, or that Redis may have lost.
function budgets.resend(keys, args)
  if args[1] == 'request' then
    local event = cjson.decode(args[3])
    local key, team = named(event.proxy_key_id), named(event.team_id)
    if key then doubt('key:' .. key, args[2], event) end
    if team then doubt('team:' .. team, args[2], event) end
  end
  return emit(keys[2], args[1], args[2], args[3])
end

-- Counts a request that ended, when its limits are not known: this memory is younger, so
-- what it knows of the request's budgets is in doubt.
function budgets.ended_unknown(args)
  if args[14] == '' then return end
  local event, field = cjson.decode(args[14]), field_of(args[1], args[2])
  for kind, id in pairs({ key = named(event.proxy_key_id), team = named(event.team_id) }) do
    local subject = kind .. ':' .. id
    let_go(subject, spends[subject], field)
    doubt(subject, args[2], event)
  end
end

-- reserve_v1  ARGV: gateway, quota, then pairs of request and tokens.
-- Restores reservations of running requests, after Redis was emptied.
function budgets.restore(_, args)
  local quota = quota_of(args[2])
  for _, budget in ipairs(quota.budgets) do
    if budget.reserve then
      local state = budgets.current(budget)
      for i = 3, #args, 2 do
        local field = args[1] .. '/' .. args[i]
        local reserved = TAG .. 'reserved:' .. budget.subject
        if state.starts == budget.starts and call('HEXISTS', reserved, field) == 0 then
          hold(budget, state, tonumber(args[i + 1]), field)
        end
      end
    end
  end
  return 1
end

-- doubt_v1  Has all windows summed anew: a gateway lost its connection, so this may
-- be another server, whose memory is older. Returns 1.
function budgets.doubt_all()
  for subject, state in pairs(spends) do
    if state.sure == KNOWN then put_in_doubt(subject, state) end
  end
  return 1
end

-- What other shards spent --------------------------------------------------------------

local function add_other(number, subject, at, tokens, nanos)
  local state = spends[subject]
  if not state or number <= (state.counted or 0) or at < state.starts then return end
  if at >= state.ends then
    -- The next window does not begin with nothing.
    spends[subject], epoch = nil, epoch + 1
    return
  end
  state.tokens, state.nanos = state.tokens + tokens, state.nanos + nanos
  if state.tokens >= state.bar_tokens or state.nanos >= state.bar_nanos then
    epoch, state.bar_tokens, state.bar_nanos = epoch + 1, math.huge, math.huge
  end
end

-- others_v1  ARGV: the row of SQL's log from which the caller read, the newest row that it
--   has, then for each row: its number, subject, a time (ms), tokens, billionths of a dollar.
-- Adds what other shards spent. Returns the row up to which it is added. Rows that were
-- read from another one are not: they would count twice, or some would be missing.
function budgets.add_others(_, args)
  local now = clock('')
  if not others_seen or now - others_at > LOGGED_MS then
    -- The sums of SQL have all before.
    budgets.doubt_all()
    others_seen, others_at = tonumber(args[2]), now
  elseif tonumber(args[1]) == others_seen then
    for i = 3, #args, 5 do
      add_other(tonumber(args[i]), args[i + 1], tonumber(args[i + 2]), tonumber(args[i + 3]),
        tonumber(args[i + 4]))
    end
    others_seen, others_at = tonumber(args[2]), now
  end
  return string.format('%.0f', others_seen)
end

-- Summing a window anew ----------------------------------------------------------------

-- recounts_v1  Returns the age in ms of this Redis's content, then for each budget
-- that has to be summed: subject, since when, start, end, does it reserve 0|1.
function budgets.wanted()
  local found = { string.format('%.0f', age()) }
  for _, subject in ipairs(call('SMEMBERS', TAG .. 'recounts')) do
    local state = spends[subject]
    if state and state.sure ~= KNOWN then
      for _, each in ipairs({ subject, string.format('%.0f', state.since),
        string.format('%.0f', state.starts), string.format('%.0f', state.ends),
        state.reserves }) do
        found[#found + 1] = each
      end
    else
      call('SREM', TAG .. 'recounts', subject)
    end
  end
  return found
end

local function recounted(subject, since)
  local state = spends[subject]
  if not state or state.sure == KNOWN or state.since ~= tonumber(since) then return nil end
  return state
end

-- Notes events that the stream has: triples of request, tokens, billionths from the
-- argument `first` on. Returns the state, or nil when this window need not be summed any
-- more.
function budgets.note_streamed(args, first)
  local state = recounted(args[1], args[2])
  if not state then return nil end
  local noted = TAG .. 'recount:' .. args[1]
  for i = first, #args, 3 do
    call('HSETNX', noted, args[i], args[i + 1] .. ' ' .. args[i + 2])
  end
  state.told = state.resent
  return state
end

-- recount_v2  ARGV: subject, since, are ids asked for 0|1, then the triples.
-- Returns how many events were sent again, and the ids of all requests that are noted, if
-- asked for; or nil when this window need not be summed any more.
function budgets.note_events(_, args)
  local state = budgets.note_streamed(args, 4)
  if not state then return false end
  local ids = args[3] == '1' and call('HKEYS', TAG .. 'recount:' .. args[1])
  return { state.resent, ids or NOTHING }
end

-- recount_v1  ARGV: subject, since, then the triples.  For routers of the version before:
-- returns the ids of all requests that are noted, or nil.
function budgets.note_and_tell(_, args)
  return budgets.note_streamed(args, 3) and call('HKEYS', TAG .. 'recount:' .. args[1]) or false
end

-- Takes the events that were sent again after the first `told` of them out of what is
-- noted. Returns them as HSET takes them.
function budgets.take_later(noted, told)
  local found, later = call('HGETALL', noted), {}
  for i = 1, #found, 2 do
    local resent = string.match(found[i + 1], '^%d+ %d+ (%d+)$')
    if resent and tonumber(resent) > told then
      call('HDEL', noted, found[i])
      later[#later + 1], later[#later + 2] = found[i], found[i + 1]
    end
  end
  return later
end

-- Takes the sum of a window. `told`: how many events that were sent again the router knew
-- when it asked last what is noted. The sum of SQL may have one that came afterwards. It is
-- not added but stays noted, as if it came after this call: the window is in doubt again.
-- So no flow of such events keeps a sum from being taken.
function budgets.take_sum(subject, state, told, tokens, nanos, counted)
  -- What was added since would be lost.
  if counted and others_seen and counted < others_seen then return {} end
  local noted = TAG .. 'recount:' .. subject
  local later = state.resent > told and budgets.take_later(noted, told) or NOTHING
  state.counted = counted
  for _, amounts in ipairs(call('HVALS', noted)) do
    local each, cost = string.match(amounts, '^(%d+) (%d+)')
    tokens, nanos = tokens + tonumber(each), nanos + tonumber(cost)
  end
  state.tokens, state.nanos, state.sure, epoch = tokens, nanos, KNOWN, epoch + 1
  call('DEL', noted)
  call('SREM', TAG .. 'recounts', subject)
  for i = 1, #later, 2 do call('HSET', noted, later[i], later[i + 1]) end
  if #later > 0 then put_in_doubt(subject, state) end
  return { string.format('%.0f', tokens), string.format('%.0f', nanos) }
end

-- recounted_v2  ARGV: subject, since, how many events were sent again as the last reply
-- that the sum leaves out told, tokens and billionths that SQL has without the noted
-- requests, and up to which row of the log they have those of other shards.
-- Returns {tokens, billionths}: what is spent, or {}.
function budgets.summed(_, args)
  local state = recounted(args[1], args[2])
  if not state then return {} end
  return budgets.take_sum(args[1], state, tonumber(args[3]), tonumber(args[4]), tonumber(args[5]),
    tonumber(args[6]))
end

-- recounted_v1  ARGV: subject, since, tokens, billionths, the row of the log or nothing.
-- For routers of the version before. What the newest call of any router told counts.
function budgets.summed_by_older(_, args)
  local state = recounted(args[1], args[2])
  if not state then return {} end
  return budgets.take_sum(args[1], state, state.told, tonumber(args[3]), tonumber(args[4]),
    tonumber(args[5]))
end

-- used_v1  ARGV: now, key ids.  For each one: requests and tokens that its limits per
-- minute count now.
function budgets.of_minute(_, args)
  local now, found = clock(args[1]), {}
  for i = 2, #args do
    local spent = budgets.minute(args[i], now)
    found[2 * i - 3], found[2 * i - 2] = spent.requests, spent.tokens
  end
  return found
end

-- count_v1  ARGV: budgets (JSON).  Begins to count them as their first requests would:
-- the router sums what was spent.
function budgets.count_all(_, args)
  for _, text in ipairs(args) do budgets.current(cjson.decode(text)) end
  return #args
end

-- spend_v2  ARGV: subjects.  For each one: kind of the window, start, end, tokens,
-- billionths of a dollar, tokens reserved, how sure (0 unknown, 1 known, 2 summed anew);
-- or an empty text.
function budgets.spend(_, args)
  local found = {}
  for i, subject in ipairs(args) do
    local state = spends[subject]
    found[i] = state and string.format('%s %.0f %.0f %.0f %.0f %.0f %d', state.kind,
      state.starts, state.ends, state.tokens, state.nanos, state.reserved,
      state.sure) or ''
  end
  return found
end

-- Reservations without a lease -----------------------------------------------------------

-- Are there reservations?
function budgets.reserving()
  return call('EXISTS', TAG .. 'reserving') == 1
end

-- Ends the reservations of a request whose lease ended without a release: its gateway
-- crashed, or the reply to its acquire was lost. `record`: that of the lease.
function budgets.end_reservations(record, field)
  local valid, event = pcall(cjson.decode, record)
  if not valid then return end
  local key, team = named(event.proxy_key_id), named(event.team_id)
  if key then let_go('key:' .. key, spends['key:' .. key], field) end
  if team then let_go('team:' .. team, spends['team:' .. team], field) end
end

-- Ends those of these reservations whose requests hold no lease.
local function sweep_fields(page, subject, fields)
  for _, key in ipairs(page.leases) do
    if #fields == 0 then return end
    local records, without = call('HMGET', key, unpack(fields)), {}
    for i, field in ipairs(fields) do
      if not records[i] then without[#without + 1] = field end
    end
    local found = #fields - #without
    page.left = page.left - OF_CALL - #fields - found * OF_RECORD
    fields = without
  end
  for _, field in ipairs(fields) do let_go(subject, spends[subject], field) end
  page.left = page.left - #fields * LET_GO
end

-- Does that with all reservations of a subject, from the cursor `at` of HSCAN on, until
-- `page.left` is used. Returns where the next call goes on, or nil at the end. A small
-- hash is listed as a whole, however much is asked for: there it goes on behind the field
-- `last`. In a large one it may not, because what HSCAN lists from a cursor on changes
-- when the hash shrinks.
local function sweep_subject(page, subject, at, last)
  local reserved = TAG .. 'reserved:' .. subject
  repeat
    if page.left <= 0 then return at, last end
    local listed, fields = call('HSCAN', reserved, at, 'COUNT', SWEPT), {}
    local whole = at == '0' and listed[1] == '0'
    for i = 1, #listed[2], 2 do
      if listed[2][i] > last then fields[#fields + 1] = listed[2][i] end
    end
    table.sort(fields)
    for first = 1, #fields, SWEPT do
      if whole and page.left <= 0 then return at, last end
      local final = math.min(first + SWEPT - 1, #fields)
      last = fields[final]
      sweep_fields(page, subject, { unpack(fields, first, final) })
    end
    at, last = listed[1], ''
  until at == '0'
  if call('HLEN', reserved) == 0 then call('SREM', TAG .. 'reserving', subject) end
end

-- sweep_v1  ARGV: what the reply before was; nothing at first.
-- Ends reservations whose requests hold no lease any more. What ends a lease ends them,
-- too, so few are left: of a record that did not name its key, or restored too late.
-- Does a part of it: returns what the next call is given, or nothing at the end. That is
-- the cursor of SSCAN among the subjects, the subject, and its place there. Subjects that
-- it misses because others leave the set meanwhile are for the next search.
function budgets.sweep(_, args)
  local known, page = current(), { leases = {}, left = LOOKUPS }
  if not known then return {} end  -- which resources have leases is not known
  for i, id in ipairs(every_holder(known)) do page.leases[i] = leases_of(id) end
  local turn, from, at, last = args[1] or '0', args[2] or '', args[3], args[4]
  repeat
    local listed = call('SSCAN', TAG .. 'reserving', turn)
    table.sort(listed[2])
    for _, subject in ipairs(listed[2]) do
      if subject >= from then
        if subject > from then at, last = '0', '' end
        at, last = sweep_subject(page, subject, at, last)
        if at then return { turn, subject, at, last } end
        page.left = page.left - LET_GO
      end
    end
    turn, from = listed[1], ''
  until turn == '0'
  return {}
end

end
