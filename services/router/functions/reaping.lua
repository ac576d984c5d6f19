-- Ends the leases of gateways that stopped, and what else is left over. For the router.
--
-- Keys read:    gateways, reaping, reports, leases:<res>, retired, health:<res>
-- Keys written: gateways, reaping, reports, leases:<res>, retired, health:<res>,
--               ranking:<pool>, sessions, pauses, limits, the telemetry stream, and what
--               budgets.lua writes

local reaping = {
  COUNT = 20,      -- leases that are read at once if some of them may end
  ENDS = 20,       -- leases that are read in the time in which one ends
  EXPIRES = 2000,  -- sessions that one call forgets
  AT_ONCE = 100,   -- silent gateways; the next round begins with the others
}

-- Ends the lease of a request whose gateway is silent. Returns false if it ended before.
function reaping.end_lease(page, id, field, record)
  if call('HDEL', leases_of(id), field) == 0 then return false end
  local request = string.match(field, '/([^/]*)$')
  local resource = page.known and page.known.by_id[id]
  if resource and call('HGET', resource.health, 'trial') == request then
    -- The next request is a trial in its place.
    local said = { stream = page.stream, now = page.now, by = request, kind = 'neutral' }
    judge(said, resource, read_health(resource))
  end
  if page.reserving then budgets.end_reservations(record, field) end
  emit(page.stream, 'request', request, string.format(
    '%s,"completed_at_ms":%.0f,"outcome":"interrupted","error_code":"gateway_lost",'
    .. '"error_message":"The gateway that served this request stopped answering."}',
    string.sub(record, 1, -2), page.now))
  return true
end

-- Emits the last ledger report of a silent gateway.
function reaping.pass_on_report(stream, gateway)
  local report = call('HGET', TAG .. 'reports', gateway)
  if not report then return end
  local at, books = string.match(report, '^(%d+)|(.*)$')
  emit(stream, 'gateway', gateway .. ':' .. at, books)
  call('HDEL', TAG .. 'reports', gateway)
end

-- Returns the gateways whose leases are to end. They are in `reaping` until all of them
-- have, so that another router goes on if this one ends between two calls, and not in
-- `gateways`, so that the next heartbeat of one that lives has it resume its leases.
function reaping.begin(before)
  local silent = call('ZRANGEBYSCORE', TAG .. 'gateways', '-inf', before,
    'LIMIT', 0, reaping.AT_ONCE)
  if #silent > 0 then
    call('ZREM', TAG .. 'gateways', unpack(silent))
    call('SADD', TAG .. 'reaping', unpack(silent))
  end
  return call('SMEMBERS', TAG .. 'reaping')
end

-- Returns which of these gateways are still silent, as a set; also their number and one
-- of them. The leases of one with a heartbeat since the call before stay.
function reaping.still_silent(gateways)
  local silent, count, one = {}, 0, nil
  for _, gateway in ipairs(gateways) do
    if call('ZSCORE', TAG .. 'gateways', gateway) then
      call('SREM', TAG .. 'reaping', gateway)
    else
      silent[gateway], count, one = true, count + 1, gateway
    end
  end
  return silent, count, one
end

-- Ends a page of leases of silent gateways. With `strays` the holders of all others
-- count as heard now, unless they are known. Returns how many ended, and the place of
-- the next page or nil.
function reaping.end_page(page, gateways, at, from, strays)
  local silent, count, one = reaping.still_silent(gateways)
  if count == 0 and not strays then return 0 end
  local heard, reaped = {}, 0
  local function look(id, listed)
    local ended = 0
    for i = 1, #listed, 2 do
      local gateway = string.match(listed[i], '^(.*)/[^/]*$')
      if silent[gateway] then
        if reaping.end_lease(page, id, listed[i], listed[i + 1]) then ended = ended + 1 end
      elseif strays and not heard[gateway] then
        -- Another router may have found it silent since this search began.
        if call('SISMEMBER', TAG .. 'reaping', gateway) == 0 then
          call('ZADD', TAG .. 'gateways', 'NX', page.now, gateway)
        end
        heard[gateway] = true
      end
    end
    if ended > 0 then reweigh(page.known, id) end
    reaped = reaped + ended
    return #listed / 2 + ended * reaping.ENDS
  end
  local pattern = '*'
  if count == 1 and not strays then pattern = leases.literal(one) .. '/*' end
  at, from = leases.walk(page.known, at, from, pattern,
    count > 0 and reaping.COUNT or leases.COUNT, look)
  if not at then
    for gateway in pairs(silent) do
      reaping.pass_on_report(page.stream, gateway)
      call('SREM', TAG .. 'reaping', gateway)
    end
  end
  return reaped, at, from
end

-- Forgets what is over. Returns whether there is more.
function reaping.forget(now)
  local over = call('ZCOUNT', TAG .. 'sessions', '-inf', now)
  if over > 0 then
    call('ZREMRANGEBYRANK', TAG .. 'sessions', 0, math.min(over, reaping.EXPIRES) - 1)
  end
  call('ZREMRANGEBYSCORE', TAG .. 'pauses', '-inf', now - MEMORY_MS)
  call('ZREMRANGEBYSCORE', TAG .. 'limits', '-inf', now)
  return over > reaping.EXPIRES
end

-- reap_v2  ARGV: silent ms, now, look for strays 0|1, then what the reply before had
-- behind its number; nothing at first.
-- Ends leases of gateways without a heartbeat for that long. Emits an `interrupted`
-- request event for each lease, and a `gateway` event with the last ledger report. A
-- stray is a lease of a gateway without any heartbeat since it was reaped: it expires
-- after the same time from now. Does a part of it: returns how many leases ended, and
-- if there is more to do, what the next call is given: the place of the next page,
-- and the gateways that the first call found silent.
function reaping.part(keys, args)
  local page = {
    known = current(), now = clock(args[2]), stream = keys[2],
    reserving = budgets.reserving(),
  }
  local at, from, gateways = args[4], args[5], {}
  if at then
    for i = 6, #args do gateways[#gateways + 1] = args[i] end
  else
    at, from, gateways = '', '', reaping.begin(page.now - tonumber(args[1]))
  end
  local more, reaped = reaping.forget(page.now), 0
  if at ~= 'over' then
    reaped, at, from = reaping.end_page(page, gateways, at, from, args[3] == '1')
    if at then return { reaped, at, from, unpack(gateways) } end
  end
  if more then return { reaped, 'over', '' } end
  return { reaped }
end

-- reap_v1  ARGV: silent ms, now, look for strays 0|1.  All of it in one call. For routers
-- of the version before.
function reaping.whole(keys, args)
  local reaped, more = 0, { args[1], args[2], args[3] }
  repeat
    local done = reaping.part(keys, more)
    reaped = reaped + done[1]
    more = { args[1], args[2], args[3], unpack(done, 2) }
  until #done == 1
  local place = {}
  repeat place = budgets.sweep(nil, place) until #place == 0
  return reaped
end
