-- Queues: requests that wait because what could serve them is at its limit.
--
-- Keys read:    waiting, queues, queue:<class>, queue:<class>|ends, queue:<class>|state,
--               queue:<class>|gateways, ranking:<pool>
-- Keys written: waiting, queues, queue:<class>, queue:<class>|ends, queue:<class>|state,
--               queue:<class>|gateways, leases:-waiting, leases:<res>, ranking:<pool>,
--               retired
--
-- A class is what a request waits for: "pool:<pool>" or, for state of an account,
-- "account:<account>". Requests of a class are served by start-time fair queuing over
-- their shares (proxy keys or sessions): a request starts at the virtual time, or when
-- the one before it of its share finishes if that is later, and finishes 1/weight after
-- that. The smallest start is served first, and becomes the virtual time. So a share
-- with many requests gets no more than one with few, as long as both have some.
--
-- An entry of a queue is "<request>|<share>|<gateway>": request ids are in the order of
-- time, which breaks ties. tests/support/memory/queues.py is the same in Python.

local queues = {  -- one table: a Lua chunk has at most 200 local variables
  MOST = 1000,           -- entries of a class; small shares are let in up to twice as many
  MOST_ENDS = 4000,      -- shares whose last finish is known
  PAGE = 16,             -- entries read beyond those that are needed
  LOOKED_AT = 512,       -- entries examined for some that are due
  AGAIN_MS = 250,        -- to ask again when a free resource is not for this request
  SILENT_MS = 2000,      -- entries of a gateway that is silent for longer are dropped
  KEPT_MS = 60000,       -- what is left of a queue that nobody serves
  FLAG_MS = 5000,        -- acquire looks at queues for this long
  POLL_MS = 10,          -- a gateway's interval, and more for each further gateway
  POLL_MORE_MS = 5,
  WAITING = TAG .. 'waiting',
  PARKED = '-waiting',   -- holds the leases of requests that wait
  terms_known = {}, terms_count = 0,
}

-- Returns the parsed terms of a gateway, "<requests in flight per resource or nothing>
-- <ms to wait> <ms to wait for a limit of the own account>", or nothing for ''.
function queues.terms(text)
  if text == '' then return NOTHING end
  local terms = queues.terms_known[text]
  if not terms then
    local most, wait, bound = string.match(text, '^(%d*) (%d+) (%d+)$')
    if queues.terms_count == 64 then queues.terms_known, queues.terms_count = {}, 0 end
    terms = { most = tonumber(most), wait_ms = tonumber(wait), bound_ms = tonumber(bound) }
    queues.terms_known[text], queues.terms_count = terms, queues.terms_count + 1
  end
  return terms
end

-- Reads what a gateway says of limits and waiting (`bounded`: it does). Returns the number
-- of the next argument.
function queues.read_terms(ask, args, first, bounded)
  local terms = bounded and queues.terms(args[first]) or NOTHING
  ask.most = terms.most or false
  ask.wait_ms, ask.bound_ms = terms.wait_ms or 0, terms.bound_ms or 0
  return bounded and first + 1 or first
end

-- Reads the place of a request that waits, and how long it still may. Returns the number
-- of the next argument.
function queues.read_place(ask, args, first)
  ask.entry = ask.request .. '|' .. args[first] .. '|' .. ask.gateway
  ask.share_weight, ask.wait_ms = tonumber(args[first + 1]), tonumber(args[first + 2])
  if ask.bound_ms > 0 then ask.bound_ms = ask.wait_ms end
  return first + 3
end

function queues.key(class, part)
  return TAG .. 'queue:' .. class .. (part and '|' .. part or '')
end

-- Pools with the same resources share a ranking, and so a class.
function queues.class_of(known, ask)
  if ask.account then return 'account:' .. ask.account end
  return 'pool:' .. string.sub(known.rankings[ask.pool], #(TAG .. 'ranking:') + 1)
end

function queues.share_of(entry) return string.match(entry, '^[^|]*|(.*)|[^|]*$') end

function queues.gateway_of(entry) return string.match(entry, '([^|]*)$') end

-- Returns how many more requests the resources of a class may have in flight. Not
-- limited, or the class has no resources any more: each entry may find out.
function queues.free(known, most, class)
  local account = string.match(class, '^account:(.*)$')
  local siblings = account and known.accounts[account]
  if not most or (account and not siblings) then return math.huge end
  local view = {}
  if siblings then
    local ranks = call('ZMSCORE', known.rankings[ALL], unpack(siblings))
    for i, id in ipairs(siblings) do view[2 * i - 1], view[2 * i] = id, ranks[i] or NEVER end
  else
    view = call('ZRANGE', TAG .. 'ranking:' .. string.sub(class, 6), 0, -1, 'WITHSCORES')
    if #view == 0 then return math.huge end
  end
  local free = 0
  for i = 1, #view, 2 do
    local resource, value = known.by_id[view[i]], tonumber(view[i + 1])
    if resource and value < MOMENTS then
      free = free + math.max(most + 1 - math.floor(value * resource.weight + 0.5), 0)
    end
  end
  return free
end

-- Returns the first entries that are due, `count` of them at most.
function queues.heads(class, now, count)
  local key, found, first = queues.key(class), {}, 0
  count = math.min(count, 2 * queues.MOST)
  while #found < count and first < count + queues.LOOKED_AT do
    local last = first + count - #found + queues.PAGE - 1
    local page = call('ZRANGE', key, first, last)
    if #page == 0 then break end
    local fields = {}
    for i, entry in ipairs(page) do fields[i] = 'due:' .. entry end
    local due = call('HMGET', queues.key(class, 'state'), unpack(fields))
    for i, entry in ipairs(page) do
      if #found < count and tonumber(due[i] or 0) <= now then found[#found + 1] = entry end
    end
    first = last + 1
  end
  return found
end

-- May a request be served now, and not one that waits?
function queues.in_turn(known, ask, class, now)
  if call('EXISTS', queues.key(class)) == 0 then return true end
  local free = queues.free(known, ask.most, class)
  if free == math.huge then return true end
  local heads = queues.heads(class, now, free)
  if #heads < free then return true end
  for _, entry in ipairs(heads) do
    if entry == ask.entry then return true end
  end
  return false
end

-- Removes an entry, which is `served` or not. Returns whether it was there.
function queues.remove(class, entry, now, served)
  local key, state = queues.key(class), queues.key(class, 'state')
  local start = call('ZSCORE', key, entry)
  if not start then return false end
  call('ZREM', key, entry)
  if call('ZCARD', key) == 0 then
    call('DEL', state, queues.key(class, 'ends'), queues.key(class, 'gateways'))
    call('SREM', TAG .. 'queues', class)
    return true
  end
  call('HDEL', state, 'due:' .. entry)
  local count = 'count:' .. queues.share_of(entry)
  if call('HINCRBY', state, count, -1) == 0 then
    call('HDEL', state, count)
    call('HINCRBY', state, 'shares', -1)
  end
  if not served then return true end
  local h = call('HMGET', state, 'time', 'served_at', 'pace_ms')
  local time = math.max(tonumber(start), tonumber(h[1] or 0))
  local pace_ms = now - tonumber(h[2] or now)
  if h[3] then pace_ms = tonumber(h[3]) + (pace_ms - tonumber(h[3])) / 8 end
  call('HSET', state, 'time', time, 'served_at', now, 'pace_ms', pace_ms)
  call('ZREMRANGEBYSCORE', queues.key(class, 'ends'), '-inf', time)
  return true
end

-- Removes an entry from whichever queue has it.
function queues.leave(entry, now, served)
  local left = 0
  for _, class in ipairs(call('SMEMBERS', TAG .. 'queues')) do
    if queues.remove(class, entry, now, served) then left = left + 1 end
  end
  return left
end

-- Removes the entries of gateways that asked for no turn for a while: they crashed.
function queues.purge(class, now)
  local gateways = queues.key(class, 'gateways')
  local silent = call('ZRANGEBYSCORE', gateways, '-inf', now - queues.SILENT_MS)
  if #silent == 0 then return end
  local is_silent = {}
  for _, gateway in ipairs(silent) do is_silent[gateway] = true end
  for _, entry in ipairs(call('ZRANGE', queues.key(class), 0, -1)) do
    if is_silent[queues.gateway_of(entry)] then queues.remove(class, entry, now, false) end
  end
  call('ZREM', gateways, unpack(silent))
end

-- A gateway is alive, so what it needs of a queue stays.
function queues.keep(class, gateway, now)
  call('ZADD', queues.key(class, 'gateways'), now, gateway)
  call('SET', queues.WAITING, '1', 'PX', queues.FLAG_MS)
  call('PEXPIRE', TAG .. 'queues', queues.KEPT_MS)
  call('PEXPIRE', queues.key(class), queues.KEPT_MS)
  for _, part in ipairs({ 'ends', 'state', 'gateways' }) do
    call('PEXPIRE', queues.key(class, part), queues.KEPT_MS)
  end
end

-- Is there no room for one more of a share? `mine` wait already, of `shares` shares.
function queues.is_full(waiting, mine, shares)
  if waiting >= 2 * queues.MOST then return true end
  return waiting >= queues.MOST and mine * math.max(shares, 1) >= queues.MOST
end

-- A request that waits holds no resource, but it has a lease, from which the reaper
-- makes its event if its gateway crashes. Repeated by each call: meanwhile a gateway that
-- lost its connection may have restored the lease on the resource of the attempt before.
function queues.park(known, ask)
  local field = field_of(ask.gateway, ask.request)
  if ask.previous ~= '' and call('HDEL', leases_of(ask.previous), field) == 1 then
    reweigh(known, ask.previous)
  end
  call('HSET', leases_of(queues.PARKED), field,
    string.format('%s,"attempts":%d}', ask.lease, ask.attempt - 1))
  call('SADD', TAG .. 'retired', queues.PARKED)
end

function queues.unpark(known, ask)
  local field = field_of(ask.gateway, ask.request)
  if call('HDEL', leases_of(queues.PARKED), field) == 1 then
    reweigh(known, queues.PARKED)
  end
end

-- Adds the request to the queue of its class, or leaves it at its place there. `due`:
-- Unix ms before which asking again is of no use, or nil. Returns false if the queue is
-- full.
function queues.join(known, ask, class, now, due)
  local key, state, entry = queues.key(class), queues.key(class, 'state'), ask.entry
  if not call('ZSCORE', key, entry) then
    queues.purge(class, now)
    local share, waiting = queues.share_of(entry), call('ZCARD', key)
    local h = call('HMGET', state, 'time', 'count:' .. share, 'shares')
    local mine, shares = tonumber(h[2] or 0), tonumber(h[3] or 0)
    if queues.is_full(waiting, mine, shares) then return false end
    local ends = queues.key(class, 'ends')
    local start = math.max(h[1] or 0, call('ZSCORE', ends, share) or 0)
    call('ZADD', key, start, entry)
    call('ZADD', ends, start + 1 / ask.share_weight, share)
    if call('ZCARD', ends) > queues.MOST_ENDS then call('ZPOPMIN', ends) end
    if mine == 0 then call('HINCRBY', state, 'shares', 1) end
    call('HINCRBY', state, 'count:' .. share, 1)
    call('SADD', TAG .. 'queues', class)
  end
  queues.park(known, ask)
  if due then
    call('HSET', state, 'due:' .. entry, due)
  else
    call('HDEL', state, 'due:' .. entry)
  end
  queues.keep(class, ask.gateway, now)
  return true
end

-- Returns ms after which asking again may succeed, at the pace of the queue.
function queues.wait_of(class)
  local waiting = call('ZCARD', queues.key(class))
  local pace_ms = call('HGET', queues.key(class, 'state'), 'pace_ms') or 0
  return math.min(math.max((waiting + 1) * pace_ms, 1000), 60000)
end

-- Has a request its lease on this resource? Then it is sent there again.
function queues.holds(known, ask, id)
  if ask.previous ~= id then return false end
  local field = field_of(ask.gateway, ask.request)
  return call('HEXISTS', known.by_id[id].leases, field) == 1
end

-- Considers the queues after the choice of acquire, whose results are those of `choose`.
-- Returns the reply for a request that has to wait; else nil and the choice.
function queues.consider(known, ask, id, reason, how, value)
  local now, class = nil, nil
  if id and how == 'free' and ask.others_wait and not queues.holds(known, ask, id) then
    now, class = clock(ask.now), queues.class_of(known, ask)
    if not queues.in_turn(known, ask, class, now) then
      id, reason, how, value = nil, 'busy', nil, nil
    end
  end
  if reason ~= 'busy' and not ask.entry then return nil, id, reason, how, value end
  now = now or clock(ask.now)
  if reason == 'busy' and ask.wait_ms > 0 then
    class = class or queues.class_of(known, ask)
    if not ask.entry then
      return { 'busy', string.format('%.0f', math.max((value or now) - now, 0)) }
    end
    local due = value
    if not due and queues.free(known, ask.most, class) > 0
      and queues.in_turn(known, ask, class, now) then
      due = now + queues.AGAIN_MS  -- what is free is not for this request
    end
    if queues.join(known, ask, class, now, due) then return { 'queued', class } end
  end
  if reason == 'busy' and not value then
    value = now + queues.wait_of(class or queues.class_of(known, ask))
  end
  if ask.entry then
    queues.leave(ask.entry, now, id ~= nil)
    queues.unpark(known, ask)
  end
  return nil, id, reason, how, value
end

-- Functions --------------------------------------------------------------------------

-- turns_v1  ARGV: gateway, now, terms as acquire_v4 has them, then the classes in
-- which the gateway's requests wait.
-- Returns ms until the gateway should ask again, and its requests whose turn it is.
function queues.turns(_, args)
  local known, now, terms = current(), clock(args[2]), queues.terms(args[3])
  local found, gateways = { 0 }, 1
  for i = 4, #args do
    local class = args[i]
    if known and call('EXISTS', queues.key(class)) == 1 then
      queues.keep(class, args[1], now)
      queues.purge(class, now)
      local free = queues.free(known, terms.most, class)
      for _, entry in ipairs(queues.heads(class, now, free)) do
        if queues.gateway_of(entry) == args[1] then
          found[#found + 1] = string.match(entry, '^[^|]*')
        end
      end
      gateways = math.max(gateways, call('ZCARD', queues.key(class, 'gateways')))
    end
  end
  found[1] = queues.POLL_MS + (gateways - 1) * queues.POLL_MORE_MS
  return found
end

-- leave_v1  ARGV: entry, now.  The request does not wait any more; its lease ends
-- with it. Returns how many queues it was in.
function queues.left(_, args)
  return queues.leave(args[1], clock(args[2]), false)
end

-- queues_v1  Returns triples of class, requests that wait, and their shares.
function queues.shown()
  local found = {}
  for _, class in ipairs(call('SMEMBERS', TAG .. 'queues')) do
    local waiting = call('ZCARD', queues.key(class))
    if waiting > 0 then
      local shares = call('HGET', queues.key(class, 'state'), 'shares')
      for _, part in ipairs({ class, waiting, tonumber(shares or 0) }) do
        found[#found + 1] = part
      end
    end
  end
  return found
end
