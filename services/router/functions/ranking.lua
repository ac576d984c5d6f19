-- Rankings: which resources of a pool can serve, and in which order.
--
-- Keys read:    ranking:<pool>, leases:<res>
-- Keys written: ranking:<pool>
--
-- The rank of an available resource is its load, (in flight + 1) / weight, which is
-- below MOMENTS. The rank of an unavailable one is the Unix ms when it may be tried. So
-- one range query returns who can serve, and when the others can.

local MOMENTS = 1e12   -- ms; the bounds on weights keep loads below
local NEVER = 9e15     -- rank of a resource whose key the upstream refused
local WINDOW = 16      -- ranks read of a large pool, and candidates in a decision
local LAST = '15'      -- WINDOW - 1 as text: numbers are formatted in each call
local RANKS_KEPT = 256 -- formatted ranks kept for each resource

local function rank(resource, value)
  local rankings = resource.rankings
  redis.call('ZADD', rankings[1], value, resource.id)
  if rankings[2] then
    redis.call('ZADD', rankings[2], value, resource.id)
    if rankings[3] then redis.call('ZADD', rankings[3], value, resource.id) end
  end
end

-- Returns the rank of an available resource as text: a number would be formatted again
-- in each call.
local function rank_of(resource, in_flight)
  local text = resource.ranks[in_flight]
  if not text then
    text = string.format('%.17g', (in_flight + 1) / resource.weight)
    if in_flight < RANKS_KEPT then resource.ranks[in_flight] = text end
  end
  return text
end

local function rank_by_load(resource)
  rank(resource, rank_of(resource, redis.call('HLEN', resource.leases)))
end

-- Returns the Unix ms when a model in cooldown may be tried again on a resource.
local function ready_at(circuit)
  return circuit.trial ~= '' and circuit.trial_until or circuit.until_ms
end

-- Returns the ranks of a pool, best first, as Redis lists them: id, rank, id, rank...
-- Of a large pool only the first WINDOW and then the first WINDOW unavailable ones;
-- `partial` is set then, and `rest` when more may be available.
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

-- Returns the rank of a resource in a view, or nil.
local function rank_in(view, id)
  for i = 1, #view, 2 do
    if view[i] == id then return tonumber(view[i + 1]) end
  end
end

-- Returns the least loaded resources that can serve, their rank, and of the others the
-- one that is ready first and when.
local function weigh(view, ask)
  local ties, lowest, soonest, soonest_ms = {}, nil, nil, nil
  for i = 1, #view, 2 do
    local id, value = view[i], tonumber(view[i + 1])
    if not ask.tried[id] then
      local circuit = ask.cooldowns and ask.cooldowns[id]
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

-- Returns the resource at a random place among all with the rank `lowest`, also those
-- outside the window.
local function drawn_of_all(ranking, draw, lowest)
  local offset = draw % redis.call('ZCOUNT', ranking, lowest, lowest)
  return redis.call('ZRANGE', ranking, offset, offset)[1]
end

-- Breaks ties by `draw`, so that gateways do not all choose the same resource.
local function drawn(view, ranking, ask, ties, lowest)
  if view.rest and tonumber(view[2 * WINDOW]) == lowest then
    local id = drawn_of_all(ranking, ask.draw, lowest)
    if not ask.tried[id] then return id end
  end
  return ties[ask.draw % #ties + 1]
end

-- `drawn` of `weigh` for the usual case: every resource in the view can serve. Needs no
-- table. Returns a resource and its rank, or nil in the other cases.
local function drawn_of_available(view, ranking, ask)
  if ask.cooldowns or ask.tried ~= NOTHING then return nil end
  local lowest = view[2]
  if not lowest or tonumber(view[#view]) >= MOMENTS then return nil end
  local ties = 1
  while view[2 * ties + 2] == lowest do ties = ties + 1 end
  if view.rest and ties == WINDOW then
    return drawn_of_all(ranking, ask.draw, lowest), tonumber(lowest)
  end
  return view[2 * (ask.draw % ties) + 1], tonumber(lowest)
end
