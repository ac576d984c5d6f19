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
  call('ZADD', rankings[1], value, resource.id)
  if rankings[2] then
    call('ZADD', rankings[2], value, resource.id)
    if rankings[3] then call('ZADD', rankings[3], value, resource.id) end
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
  rank(resource, rank_of(resource, call('HLEN', resource.leases)))
end

-- Returns the Unix ms when a model in cooldown may be tried again on a resource.
local function ready_at(circuit)
  return circuit.trial ~= '' and circuit.trial_until or circuit.until_ms
end

-- Returns the ranks of a pool, best first, as Redis lists them: id, rank, id, rank...
-- Of a large pool only the first WINDOW and then the first WINDOW unavailable ones;
-- `partial` is set then, and `rest` when more may be available.
local function survey(ranking, whole)
  local view = call('ZRANGE', ranking, '0', whole and '-1' or LAST, 'WITHSCORES')
  if #view == 2 * WINDOW and not whole then
    view.partial = true
    view.rest = (numbers[view[#view]] or number_of(view[#view])) < MOMENTS
    local count = #view
    while count > 0 and tonumber(view[count]) >= MOMENTS do
      view[count], view[count - 1], count = nil, nil, count - 2
    end
    local away = call('ZRANGE', ranking, MOMENTS, '+inf', 'BYSCORE', 'LIMIT', 0,
      WINDOW, 'WITHSCORES')
    for i = 1, #away do view[count + i] = away[i] end
  end
  return view
end

-- Returns the rank of a resource in a view, or nil.
local function rank_in(view, id)
  for i = 1, #view, 2 do
    if view[i] == id then return numbers[view[i + 1]] or number_of(view[i + 1]) end
  end
end

-- Has a resource, whose rank is `value`, as many requests in flight as it may have?
-- Without the request itself, which may be there from its last attempt.
local function is_full(ask, id, value)
  if not ask.most or not ask.by_id[id] then return false end
  local in_flight = math.floor(value * ask.by_id[id].weight + 0.5) - 1
  if in_flight < ask.most or ask.previous ~= id then return in_flight >= ask.most end
  local field = ask.gateway .. '/' .. ask.request
  return in_flight - call('HEXISTS', ask.by_id[id].leases, field) >= ask.most
end

-- The same for one that is cooling down: its rank does not tell.
local function has_room(ask, id)
  local resource = ask.most and ask.by_id[id]
  if not resource then return true end
  local in_flight = call('HLEN', resource.leases)
  return not is_full(ask, id, (in_flight + 1) / resource.weight)
end

-- Returns the least loaded resources that can serve, their rank, and of the others the
-- one that is ready first and when. A resource whose account cannot take the request is
-- passed over while another can; else the one whose limit resets first serves
-- (`ask.short`, at `ask.short_ms`). `ask.crowded`: some have as many requests in flight
-- as they may have.
local function weigh(view, ask)
  ask.crowded, ask.short_ms = false, false
  local ties, lowest, soonest, soonest_ms = {}, nil, nil, nil
  local spare, spare_ms, spare_value = {}, nil, nil
  for i = 1, #view, 2 do
    local id, value = view[i], numbers[view[i + 1]] or number_of(view[i + 1])
    if not ask.tried[id] then
      local circuit = ask.cooldowns and ask.cooldowns[id]
      local until_ms = circuit and ready_at(circuit) or 0
      if value >= MOMENTS and value > until_ms then until_ms = value end
      local full = until_ms == 0 and is_full(ask, id, value)
      local full_ms = until_ms == 0 and not full and limited_until(ask, id)
      if full then
        ask.passed_over, ask.crowded = true, true
      elseif full_ms then
        ask.passed_over = true
        if not spare_ms or full_ms < spare_ms
            or (full_ms == spare_ms and value < spare_value) then
          spare, spare_ms, spare_value = { id }, full_ms, value
        elseif full_ms == spare_ms and value == spare_value then
          spare[#spare + 1] = id
        end
      elseif until_ms == 0 then
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
  ask.short, ask.short_ms = #ties == 0 and #spare > 0, spare_ms or false
  if ask.short then return spare, spare_value, soonest, soonest_ms end
  return with_most_left(ask, ties), lowest, soonest, soonest_ms
end

-- Returns the resource at a random place among all with the rank `lowest`, also those
-- outside the window.
local function drawn_of_all(ranking, draw, lowest)
  local offset = draw % call('ZCOUNT', ranking, lowest, lowest)
  return call('ZRANGE', ranking, offset, offset)[1]
end

-- Breaks ties by `draw`, so that gateways do not all choose the same resource.
local function drawn(view, ranking, ask, ties, lowest)
  if view.rest and tonumber(view[2 * WINDOW]) == lowest then
    local id = drawn_of_all(ranking, ask.draw, lowest)
    local serves = not ask.tried[id] and not limited_until(ask, id)
    if serves and not is_full(ask, id, lowest) then return id end
  end
  return ties[ask.draw % #ties + 1]
end

-- Returns the one at a random place among the first `ties` whose accounts have most of
-- their limits left; nil if none can take the request.
local function drawn_by_limits(view, ties, ask)
  local left, roomy, best, count = ask.limits.left, ask.roomy, -1, 0
  for i = 1, 2 * ties, 2 do
    local id = view[i]
    if roomy or not limited_until(ask, id) then
      local share = left[id] or share_left(ask, id)
      if share > best then
        best, count = share, 1
      elseif share == best then
        count = count + 1
      end
    else
      ask.passed_over = true
    end
  end
  if count == 0 then return nil end
  local place = ask.draw % count
  if count == ties then return view[2 * place + 1] end
  for i = 1, 2 * ties, 2 do
    local id = view[i]
    if share_left(ask, id) == best and not limited_until(ask, id) then
      if place == 0 then return id end
      place = place - 1
    end
  end
end

-- `drawn` of `weigh` for the usual case: every resource in the view can serve. Needs no
-- table. Returns a resource and its rank, or nil in the other cases.
local function drawn_of_available(view, ranking, ask)
  if ask.cooldowns or ask.tried ~= NOTHING then return nil end
  local lowest = view[2]
  if not lowest then return nil end
  local last = view[#view]
  local value = numbers[lowest] or number_of(lowest)
  local highest = numbers[last] or number_of(last)
  if highest >= MOMENTS then return nil end
  if ask.most then
    local most_rank = (ask.most + 0.5) / ask.known.heaviest
    if highest > most_rank then ask.passed_over = true end
    if value > most_rank then return nil end
  end
  local ties = 1
  while view[2 * ties + 2] == lowest do ties = ties + 1 end
  if view.rest and ties == WINDOW then
    local id = drawn_of_all(ranking, ask.draw, lowest)
    if limited_until(ask, id) then return nil end
    return id, value
  end
  if ask.limits then return drawn_by_limits(view, ties, ask), value end
  return view[2 * (ask.draw % ties) + 1], value
end
