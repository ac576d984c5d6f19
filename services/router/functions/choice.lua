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
-- else the Unix ms when asking again may succeed, or nil.

local function by_load(known, ask, reason)
  local view, ranking = ask.view, known.rankings[ask.pool]
  local id, value = drawn_of_available(view, ranking, ask)
  if id then return id, reason, 'free', value end
  local ties, lowest, soonest, soonest_ms = weigh(view, ask)
  if view.partial and (ask.cooldowns or #ties == 0) then
    view = survey(ranking, true)
    ties, lowest, soonest, soonest_ms = weigh(view, ask)
  end
  -- Half open: the first resource whose cooldown is over gets one request.
  if soonest and soonest_ms <= clock(ask.now) then return soonest, reason, 'trial' end
  if #ties > 0 then return drawn(view, ranking, ask, ties, lowest), reason, 'free', lowest end
  if soonest then return soonest, 'panic' end
  return nil, 'no_capacity'
end

local function cause_of(known, ask, id)
  local circuit = ask.cooldowns and ask.cooldowns[id]
  if circuit then return circuit.cause end
  return redis.call('HGET', known.by_id[id].health, 'cause') or ''
end

-- Returns whether a resource can serve this request; `value` is its rank or nil.
local function serves(ask, id, value)
  return value and value < MOMENTS and not ask.tried[id]
    and not (ask.cooldowns and ask.cooldowns[id])
end

-- Returns the ranks of resources as `survey` does, and whether a request that could
-- have been served was tried on one already.
local function survey_siblings(known, siblings, ask)
  local reply = redis.call('ZMSCORE', known.rankings[ALL], unpack(siblings))
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
  if not siblings then return nil, 'owner_gone' end
  local view, tried_any = survey_siblings(known, siblings, ask)
  value = rank_in(view, owner)
  if serves(ask, owner, value) then return owner, 'response_affinity', 'free', value end
  local ties, lowest, first, first_ms = weigh(view, ask)
  if #ties > 0 then
    return ties[ask.draw % #ties + 1], 'response_affinity', 'free', lowest
  end
  if not first then return nil, tried_any and 'no_capacity' or 'owner_gone' end
  if first_ms <= clock(ask.now) then return first, 'response_affinity', 'trial' end
  if string.sub(cause_of(known, ask, first), 1, 3) == '429' then
    return nil, 'owner_limited', nil, first_ms
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
    value = tonumber(redis.call('ZSCORE', known.rankings[ask.pool], home) or NEVER)
  end
  return serves(ask, home, value) and value or nil
end

local function choose(known, ask)
  local home = ask.session and owner_of(ask.session).resource
  local found, unsought = bound_owner(ask)
  found = found or (ask.account_bound and home and ask.session) or ask.hint
  if found then
    local owner = owner_of(found)
    local resource = known.by_id[owner.resource]
    ask.home = owner.resource
    local account = resource and resource.account_id or owner.account
    return by_account(known, owner.resource, account, ask)
  end
  if unsought and not ask.resolved then return nil, 'look_up' end
  ask.home = home
  local value = home and at_home(known, ask, home)
  if value then return home, 'session_affinity', 'free', value end
  if ask.replayed then return by_load(known, ask, 'replayed_without_reasoning') end
  return by_load(known, ask, home and 'session_failover' or 'weighted_least_connections')
end
