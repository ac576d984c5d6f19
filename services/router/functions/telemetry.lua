-- Events in the telemetry stream, and decisions with their candidates as JSON.
--
-- Keys read:    the telemetry stream (XINFO), ranking:*, unproven
-- Keys written: the telemetry stream
--
-- A stream entry has the fields that libs/common/contracts/events.py describes.

local ROWS_KEPT = 256  -- formatted candidates kept for each resource

local function emit(stream, kind, id, data)
  return call('XADD', stream, '*', 'kind', kind, 'id', id, 'v', '1', 'data', data)
end

-- Emits a health event. `model` is its name as JSON, or nil for the whole resource.
local function transition(said, resource, before, after, cause, until_ms, model)
  if before == after then return end
  local event = string.format(
    '{"created_at_ms":%.0f,"resource_id":"%s","model":%s,"before":"%s","after":"%s",'
    .. '"cause":%s,"cooldown_until_ms":%s}', said.now, resource.id, model or 'null', before,
    after, cjson.encode(cause),
    until_ms and until_ms < NEVER and string.format('%.0f', until_ms) or 'null')
  -- Two models of a resource may change in the same millisecond.
  local id = string.format('%013d-%s-%s', said.now, resource.id, after)
  if model then id = id .. '-' .. string.sub(redis.sha1hex(model), 1, 12) end
  emit(said.stream, 'health', id, event)
end

-- Returns the id of the stream's first entry or '' when it is empty, the last id it
-- assigned, and the number of entries ever added. Entries older than the first are
-- stored in SQL.
local function stream_ends(stream)
  local told, listed = {}, redis.pcall('XINFO', 'STREAM', stream)
  if listed.err then return '', '0-0', 0 end  -- no stream
  for i = 1, #listed, 2 do told[listed[i]] = listed[i + 1] end
  local first = told.length > 0 and told['recorded-first-entry-id'] or ''
  return first, told['last-generated-id'], told['entries-added']
end

-- Returns why a resource was not eligible or nil, and its health.
local function standing(known, ask, id, value)
  local circuit = ask.cooldowns and ask.cooldowns[id]
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
  if ask.tried[id] then return 'already tried', health end
  if is_full(ask, id, value) then
    return string.format('has its most requests in flight (%d)', ask.most), health
  end
  local full_ms = limited_until(ask, id)
  if full_ms then
    return string.format('its account is at its limit until %.0f', full_ms), health
  end
  return nil, health
end

-- Omits the defaults: healthy, and not refused.
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

-- Formats a candidate and keeps the text. For asks whose rows depend only on the rank
-- and on whether the account is the resource's: formatting is half the cost of a
-- decision.
local function usual_json(known, ask, resource, rows, rank_text)
  local value = tonumber(rank_text)
  local row = candidate_json(known, ask, resource.id, value)
  if value < MOMENTS and resource.rows_kept < ROWS_KEPT then
    rows[rank_text], resource.rows_kept = row, resource.rows_kept + 1
  end
  return row
end

-- Adds to a candidate what is left of its account's limits: in an explanation always, in
-- a decision only if that is not plenty. The text of a usual one is kept until the limits
-- change.
local function with_limits(limits, resource, row, usual, whole)
  local share = limits.shares[resource.account_id]
  if not share or (share >= PLENTY and not whole) then return row end
  local kept = limits.rows[row]
  if not kept then
    kept = string.sub(row, 1, -2) .. limits_json(limits.of[resource.account_id])
    if usual then limits.rows[row] = kept end
  end
  return kept
end

-- Reads the resources of unknown health, once per call until all are proven.
local function know_the_unproven(known)
  if known.all_proven then return end
  local unproven = call('SMEMBERS', TAG .. 'unproven')
  known.all_proven, known.unproven = #unproven == 0, {}
  for _, id in ipairs(unproven) do known.unproven[id] = true end
end

local ROWS = {}  -- reused by each call: a new table costs more

-- Returns what the choice was made from, as JSON objects separated by commas, best
-- first, always with the chosen one.
local function candidates(known, ask, view, chosen)
  know_the_unproven(known)
  local usual = known.all_proven and not ask.cooldowns and ask.tried == NOTHING
    and not ask.passed_over
  local limits = ask.limits
  if limits and limits.least >= PLENTY and not ask.explains then limits = nil end
  local by_id, account, count, shown = known.by_id, ask.account, 0, not chosen
  for i = 1, #view, 2 do
    local id, rank_text = view[i], view[i + 1]
    local resource = by_id[id]
    if resource then
      count = count + 1
      if usual then
        local rows = resource.rows
        if account and resource.account_id ~= account then rows = resource.elsewhere end
        ROWS[count] = rows[rank_text] or usual_json(known, ask, resource, rows, rank_text)
      else
        ROWS[count] = candidate_json(known, ask, id, tonumber(rank_text))
      end
      if limits then
        ROWS[count] = with_limits(limits, resource, ROWS[count], usual, ask.explains)
      end
      shown = shown or id == chosen
    end
  end
  local rows = table.concat(ROWS, ',', 1, count)
  if shown then return rows end
  local value = tonumber(call('ZSCORE', known.rankings[ALL], chosen) or NEVER)
  local row = candidate_json(known, ask, chosen, value)
  return count > 0 and row .. ',' .. rows or row
end

-- Returns why the resource that holds a session or state was not chosen.
local function cause_of_leaving(known, ask)
  if not known.by_id[ask.home] then return 'gone' end
  local value = tonumber(call('ZSCORE', known.rankings[ALL], ask.home) or NEVER)
  if value >= NEVER then return 'unhealthy' end
  local cooling = ask.cooldowns and ask.cooldowns[ask.home]
  if value >= MOMENTS or cooling then return 'cooling_down' end
  if is_full(ask, ask.home, value) then return 'busy' end
  return ask.left_full == ask.home and 'limit_reached' or 'another_pool'
end

-- The head of a later attempt's event holds the cause: how the previous one ended. That
-- of a first one may: why the target of its model alias before was left.
local function decision_json(known, ask, id, reason)
  local left = ''
  local first = ask.attempt == '1' or (ask.socket and ask.decided)
  if first and ask.home and ask.home ~= id
      and not string.find(ask.head, '"cause":', 1, true) then
    left = '","cause":"' .. cause_of_leaving(known, ask)
  end
  return ask.head .. ',"resource_id":' .. (id and '"' .. id .. '"' or 'null')
    .. ',"reason":"' .. reason .. left .. '","candidates":['
    .. candidates(known, ask, ask.view, id) .. ']}'
end
