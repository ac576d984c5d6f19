-- The choice of a resource.
--
-- Keys read:    ranking:<pool>, health:<res> (its cause)
-- Keys written: none
--
-- The order of the rules is in docs/architecture.md. libs/common/routing/policy.py is
-- the same in Python.
--
-- A choice is: the resource or nil; the reason; how ('free': it is available, 'trial':
-- half open, nil: in spite of its state); and a number: the rank of a free resource,
-- else the Unix ms when asking again may succeed, or nil. The reason 'busy': what could
-- serve the request is at its limit, so it may wait (queue.lua).

local TRIAL_WAIT_MS = 1000  -- for a client to ask again during a trial
local TRIAL_LOOK_MS = 250   -- for a request that waits

local function cause_of(known, ask, id)
  local circuit = ask.cooldowns and ask.cooldowns[id]
  if circuit then return circuit.cause end
  return call('HGET', known.by_id[id].health, 'cause') or ''
end

local function is_limit(cause)
  return string.sub(cause, 1, 3) == '429'
end

-- Returns when to ask again for a resource that is rate limited. The outcome of a
-- half-open trial is known long before the trial would time out.
local function soonest_of(known, ask, id, until_ms, trial_ms)
  local circuit = ask.cooldowns and ask.cooldowns[id]
  local trial = circuit and circuit.trial
    or call('HGET', known.by_id[id].health, 'trial') or ''
  if trial == '' then return until_ms end
  return math.min(until_ms, clock(ask.now) + trial_ms)
end

-- Should the request wait for a limit that ends at `until_ms`?
local function waits(ask, until_ms, bound)
  local wait_ms = bound and ask.bound_ms or ask.wait_ms
  return wait_ms > 0 and until_ms <= clock(ask.now) + wait_ms
end

local function by_load(known, ask, reason)
  local view, ranking = ask.view, known.rankings[ask.pool]
  local id, value = drawn_of_available(view, ranking, ask)
  if id then return id, reason, 'free', value end
  local ties, lowest, soonest, soonest_ms = weigh(view, ask)
  if view.partial and (ask.cooldowns or #ties == 0 or ask.short) then
    view = survey(ranking, true)
    ties, lowest, soonest, soonest_ms = weigh(view, ask)
  end
  -- Half open: the first resource whose cooldown is over gets one request.
  local room = soonest and has_room(ask, soonest)
  if room and soonest_ms <= clock(ask.now) then return soonest, reason, 'trial' end
  if #ties > 0 and not (ask.others and ask.short) then
    if ask.short and waits(ask, ask.short_ms) then return nil, 'busy', nil, ask.short_ms end
    return drawn(view, ranking, ask, ties, lowest), reason, 'free', lowest
  end
  if ask.others then return nil, 'no_capacity', nil, soonest_ms end
  if ask.crowded or (soonest and not room) then return nil, 'busy' end
  if not soonest then return nil, 'no_capacity' end
  if ask.wait_ms > 0 and is_limit(cause_of(known, ask, soonest)) then
    local until_ms = soonest_of(known, ask, soonest, soonest_ms, TRIAL_LOOK_MS)
    if waits(ask, until_ms) then return nil, 'busy', nil, until_ms end
  end
  return soonest, 'panic'
end

-- Returns whether a resource can serve this request; `value` is its rank or nil.
local function serves(ask, id, value)
  return value and value < MOMENTS and not ask.tried[id]
    and not (ask.cooldowns and ask.cooldowns[id]) and not is_full(ask, id, value)
end

-- Returns the ranks of resources as `survey` does, and whether a request that could
-- have been served was tried on one already.
local function survey_siblings(known, siblings, ask)
  local reply = call('ZMSCORE', known.rankings[ALL], unpack(siblings))
  local view, tried_any = {}, false
  for i, id in ipairs(siblings) do
    local value = tonumber(reply[i] or NEVER)
    view[2 * i - 1], view[2 * i] = id, value
    tried_any = tried_any or (ask.tried[id] and value < NEVER)
  end
  return view, tried_any
end

-- For state of `account`: the resource that made it, else the least loaded of the same
-- account; when none is available, by the state of the one that is ready first.
local function by_account(known, owner, account, ask)
  ask.account = account
  local value = known.by_id[owner] and rank_in(ask.view, owner)
  if serves(ask, owner, value) then return owner, 'response_affinity', 'free', value end
  local siblings = (known.within[ask.pool] or known.accounts)[account]
  if ask.socket and ask.confined then siblings = known.by_id[owner] and { owner } end
  if not siblings then return nil, 'owner_gone' end
  local view, tried_any = survey_siblings(known, siblings, ask)
  value = rank_in(view, owner)
  if serves(ask, owner, value) then return owner, 'response_affinity', 'free', value end
  local ties, lowest, first, first_ms = weigh(view, ask)
  if #ties > 0 then
    return ties[ask.draw % #ties + 1], 'response_affinity', 'free', lowest
  end
  local room = first and has_room(ask, first)
  if room and first_ms <= clock(ask.now) then return first, 'response_affinity', 'trial' end
  if ask.crowded or (first and not room) then return nil, 'busy' end
  if not first then return nil, tried_any and 'no_capacity' or 'owner_gone' end
  if is_limit(cause_of(known, ask, first)) then
    local soon = soonest_of(known, ask, first, first_ms, TRIAL_LOOK_MS)
    if waits(ask, soon, true) then return nil, 'busy', nil, soon end
    return nil, 'owner_limited', nil,
      soonest_of(known, ask, first, first_ms, TRIAL_WAIT_MS)
  end
  return first, 'response_affinity'  -- failing, but no other can serve
end

-- Returns the rank of a session's resource if it can serve the request, else nil.
local function at_home(known, ask, home)
  local resource = known.by_id[home]
  if not resource or not resource.pools[ask.pool] then return nil end
  local view = ask.view
  local value = rank_in(view, home)
  if not value and view.partial then
    value = tonumber(call('ZSCORE', known.rankings[ask.pool], home) or NEVER)
  end
  return serves(ask, home, value) and value or nil
end

-- `by_account` for a WebSocket. A client that continues a response can send the whole
-- input instead: it need not wait for the account, nor see it fail, while any other
-- resource can serve.
local function by_account_or_anew(known, owner, account, ask)
  local id, reason, how, value = by_account(known, owner, account, ask)
  local waits_here = reason == 'busy' and ask.wait_ms > 0
  if ask.socket and ask.chained and not how and reason ~= 'owner_gone' and not waits_here then
    local _, _, other = by_load(known, ask, reason)
    if other then return nil, 'owner_gone' end
  end
  return id, reason, how, value
end

local function of_owner(known, ask, owner)
  local resource = known.by_id[owner.resource]
  ask.home = ask.socket or owner.resource
  local account = resource and resource.account_id or owner.account
  return by_account_or_anew(known, owner.resource, account, ask)
end

-- Where a request of a WebSocket goes when the socket's resource cannot serve it, if it
-- is bound to the resource's account; else nil.
local function of_socket(known, ask)
  if not ask.chained and not ask.account_bound then return nil end
  local resource = known.by_id[ask.socket]
  return { resource = ask.socket, account = resource and resource.account_id or '' }
end

-- Is the account of a resource at its limit, and another resource can serve?
local function better_elsewhere(known, ask, id)
  if not limited_until(ask, id) then return false end
  local _, _, how = by_load(known, ask, '')
  if how ~= 'free' or ask.short then return false end
  ask.left_full = id
  return true
end

local function choose(known, ask)
  local value = ask.socket and at_home(known, ask, ask.socket)
  if value then
    -- What names state may have to come here in spite of the limit.
    local free = not ask.chained and not ask.account_bound and ask.bound == 0
    if not (free and better_elsewhere(known, ask, ask.socket)) then
      return ask.socket, 'socket', 'free', value
    end
  end
  local home = ask.session and owner_of(ask.session).resource
  local found, unsought = bound_owner(ask)
  found = found or (ask.account_bound and home and ask.session) or ask.hint
  if ask.socket and ask.confined then return of_owner(known, ask, of_socket(known, ask)) end
  if found then return of_owner(known, ask, owner_of(found)) end
  if unsought and not ask.resolved then return nil, 'look_up' end
  local held = ask.socket and of_socket(known, ask)
  if held then return of_owner(known, ask, held) end
  ask.home = ask.socket or home or false
  value = home and at_home(known, ask, home)
  if value and not better_elsewhere(known, ask, home) then
    return home, 'session_affinity', 'free', value
  end
  if ask.replayed then return by_load(known, ask, 'replayed_without_reasoning') end
  return by_load(known, ask, home and 'session_failover' or 'weighted_least_connections')
end
