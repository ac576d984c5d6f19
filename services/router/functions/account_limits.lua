-- Limits of accounts, as the upstream's x-ratelimit-* headers told them, for each model.
--
-- Keys read:    limits:<model>, limits
-- Keys written: limits:<model>, limits
--
-- They are a preference: an account that cannot take a request is passed over while
-- another can. libs/common/routing/account_limits.py is the same in Python.
--
-- The value of a key is {model name, {account -> entry}}. An entry is an array of
--   1 REQUESTS, 2 requests remaining, 3 Unix ms of their reset
--   4 TOKENS, 5 tokens remaining, 6 Unix ms of their reset
--   7 Unix ms when the upstream told this
--   8 Unix ms when a request went there although the account could not take it, or 0
-- A limit that is not known is 0, with UNLIMITED remaining.

local UNLIMITED = 9e15
local LONGEST_MS = 3600000   -- a reset that is further away is not one: a clock jumped
local ASK_AGAIN_MS = 1000    -- one request goes to a limited account in this time
local MOST_LIMITED = 500     -- models with limits; clients choose model names
local MOST_DECODED = 64      -- models whose limits are kept decoded
local PLENTY = 50            -- percent: from there on limits are noted less often
local SPARSE = 4             -- below a fourth of a limit each request is subtracted

-- model digest -> its limits, kept between calls. Each call compares the packed text, so
-- a stale copy is never used.
local decoded, decoded_count = {}, 0

-- Returns the smaller part of a limit that remains, in whole percent. Noise of less does
-- not outweigh the draw.
local function share_of(entry)
  local share = 100
  if entry[1] > 0 then share = math.min(share, math.floor(100 * entry[2] / entry[1])) end
  if entry[4] > 0 then share = math.min(share, math.floor(100 * entry[5] / entry[4])) end
  return share
end

local function ends_of(entry)
  return math.max(entry[1] > 0 and entry[3] or 0, entry[4] > 0 and entry[6] or 0)
end

-- Returns members of a candidate as JSON, of those limits that are known.
local function limits_json(entry)
  local resets, text = 0, ''
  if entry[1] > 0 then
    text, resets = string.format(',"remaining_requests":%.0f', entry[2]), entry[3]
  end
  if entry[4] > 0 then
    text = text .. string.format(',"remaining_tokens":%.0f', entry[5])
    resets = math.max(resets, entry[6])
  end
  return text .. string.format(',"limit_resets_at_ms":%.0f}', resets)
end

-- Returns the limits of a model from the packed text, or nil: text, name, `of` (account
-- -> entry), `ends` (Unix ms of the last reset), `tokens` and `requests` (the least that
-- any account has left, if that is not all), `shares` (account -> percent), `least` (the
-- smallest of them), and what is filled in for a `version` of the catalogue when it is
-- asked for: `left` (resource -> percent), and `rows` (candidate -> the same with what is
-- left).
local function read_limits(digest, packed)
  if not packed then return nil end
  local limits = decoded[digest]
  if limits and limits.text == packed then return limits end
  if not limits then
    if decoded_count >= MOST_DECODED then decoded, decoded_count = {}, 0 end
    decoded_count = decoded_count + 1
  end
  local found = cmsgpack.unpack(packed)
  limits = {
    text = packed, name = found[1], of = found[2], ends = 0, tokens = UNLIMITED,
    requests = UNLIMITED, least = 100, shares = {}, left = {}, rows = {},
  }
  for account, entry in pairs(limits.of) do
    limits.requests = math.min(limits.requests, entry[2])
    if entry[5] < entry[4] then limits.tokens = math.min(limits.tokens, entry[5]) end
    limits.ends = math.max(limits.ends, ends_of(entry))
    local share = share_of(entry)
    limits.shares[account], limits.least = share, math.min(limits.least, share)
  end
  decoded[digest] = limits
  return limits
end

-- `given`: the caller's time, or '' when `now` is Redis's, so that the key can expire
-- with the limits.
local function write_limits(digest, name, entries, now, given)
  local key, latest = TAG .. 'limits:' .. digest, now
  for account, entry in pairs(entries) do
    local ends = ends_of(entry)
    if ends <= now then entries[account] = nil end
    latest = math.max(latest, ends)
  end
  if latest <= now then
    call('DEL', key)
    call('ZREM', TAG .. 'limits', digest)
    return
  end
  local keep_ms = given == '' and math.min(latest - now, LONGEST_MS) or LONGEST_MS
  call('SET', key, cmsgpack.pack({ name, entries }), 'PX',
    string.format('%.0f', keep_ms))
  -- The one that ends first is dropped.
  if call('ZADD', TAG .. 'limits', latest, digest) == 1
    and call('ZCARD', TAG .. 'limits') > MOST_LIMITED then
    call('DEL', TAG .. 'limits:' .. call('ZPOPMIN', TAG .. 'limits')[1])
  end
end

local function time_asked(ask)
  local now = ask.at or clock(ask.now)
  ask.at = now
  return now
end

-- Returns what is known of the limits of the request's model, or nil. Sets `ask.roomy`
-- when every account can take the request.
local function limits_of(ask, packed, version)
  ask.tokens = ask.tokens and tonumber(ask.tokens)
  if not ask.tokens then return nil end
  local limits = read_limits(ask.model, packed)
  if ask.now ~= '' and limits.ends <= time_asked(ask) then return nil end
  if limits.version ~= version then  -- resources may have other accounts
    limits.version, limits.left, limits.rows = version, {}, {}
  end
  ask.roomy = limits.requests >= 1 and limits.tokens >= ask.tokens
  return limits
end

-- Returns the Unix ms when the limit of an account resets that cannot take the request
-- before; nil if it can. Not known for certain, so ASK_AGAIN_MS after the upstream told
-- it, or the account was last asked, the next request may find out.
local function full_until(ask, account, in_spite)
  local entry = ask.limits.of[account]
  if not entry then return nil end
  local until_ms = 0
  if entry[2] < 1 then until_ms = entry[3] end
  if entry[5] < math.min(ask.tokens, entry[4]) then until_ms = math.max(until_ms, entry[6]) end
  if until_ms == 0 then return nil end
  local now = time_asked(ask)
  if until_ms <= now or until_ms > now + LONGEST_MS then return nil end
  local asked = math.max(entry[7], entry[8])
  if not in_spite and (asked <= now - ASK_AGAIN_MS or asked > now) then return nil end
  return until_ms
end

-- The same for a resource.
local function limited_until(ask, id)
  if ask.roomy or not ask.limits then return nil end
  local resource = ask.by_id[id]
  return resource and full_until(ask, resource.account_id)
end

local function share_left(ask, id)
  local share = ask.limits.left[id]
  if not share then
    local resource = ask.by_id[id]
    share = resource and ask.limits.shares[resource.account_id] or 100
    ask.limits.left[id] = share
  end
  return share
end

-- Keeps those resources whose accounts have the largest share of their limits left.
local function with_most_left(ask, ids)
  if not ask.limits or #ids < 2 then return ids end
  local best, kept = -1, {}
  for _, id in ipairs(ids) do
    local share = share_left(ask, id)
    if share > best then
      best, kept = share, { id }
    elseif share == best then
      kept[#kept + 1] = id
    end
  end
  return kept
end

-- Subtracts a request from what remains, because many may begin before the upstream
-- tells it again. Only where that matters: it is a write.
local function take_from_limits(ask, resource)
  local entry = ask.limits and ask.limits.of[resource.account_id]
  if not entry then return end
  if entry[2] * SPARSE >= entry[1] and entry[5] * SPARSE >= entry[4] + ask.tokens * SPARSE then
    return
  end
  local now = time_asked(ask)
  if full_until(ask, resource.account_id, true) then
    entry[8] = now
    -- If the limit resets before the answer tells what is left, one request goes there
    -- all the same, and not all that come meanwhile.
    entry[3] = math.max(entry[3], now + ASK_AGAIN_MS)
    entry[6] = math.max(entry[6], now + ASK_AGAIN_MS)
  end
  if entry[1] > 0 then entry[2] = math.max(entry[2] - 1, 0) end
  if entry[4] > 0 then entry[5] = math.max(entry[5] - ask.tokens, 0) end
  decoded[ask.model] = nil
  decoded_count = decoded_count - 1
  write_limits(ask.model, ask.limits.name, ask.limits.of, now, ask.now)
end

-- Stores what an upstream told of the limits of a resource's account, unless that is
-- older than what is known (`packed`). As long as plenty is left, once a second is
-- enough. `told`: numbers, separated by blanks: the age in ms, then limit, remaining and
-- ms to the reset of requests and of tokens, or -1 each.
local function learn_limits(said, resource, told, now, packed)
  local n = {}
  for number in string.gmatch(told, '%S+') do n[#n + 1] = tonumber(number) end
  if #n ~= 7 or said.model == '' then return end
  local at = now - n[1]
  local entry = { 0, UNLIMITED, 0, 0, UNLIMITED, 0, at, 0 }
  for i = 1, 4, 3 do
    if n[i + 1] >= 0 and at + n[i + 3] > now then
      entry[i], entry[i + 1], entry[i + 2] = n[i + 1], n[i + 2], at + n[i + 3]
    end
  end
  local known = read_limits(said.model, packed)
  local entries = known and known.of or {}
  local before = entries[resource.account_id]
  if before and ends_of(before) > now then
    if before[7] > at and before[7] <= now then return end
    local recent = at < before[7] + ASK_AGAIN_MS and before[7] <= now
    if recent and share_of(before) >= PLENTY and share_of(entry) >= PLENTY then return end
    entry[8] = before[8]
  end
  entries[resource.account_id] = entry
  if known then
    decoded[said.model] = nil
    decoded_count = decoded_count - 1
  end
  write_limits(said.model, said.model_name, entries, now, said.clock)
end

-- Returns account -> list of what is known of its limits, for each model.
local function known_limits(now)
  local by_account = {}
  for _, digest in ipairs(call('ZRANGEBYSCORE', TAG .. 'limits', now, '+inf')) do
    local limits = read_limits(digest, call('GET', TAG .. 'limits:' .. digest))
    for account, entry in pairs(limits and limits.of or {}) do
      local row = { model = limits.name }
      if entry[1] > 0 and entry[3] > now then
        row.limit_requests, row.remaining_requests = entry[1], entry[2]
        row.requests_reset_at_ms = entry[3]
      end
      if entry[4] > 0 and entry[6] > now then
        row.limit_tokens, row.remaining_tokens = entry[4], entry[5]
        row.tokens_reset_at_ms = entry[6]
      end
      if row.limit_requests or row.limit_tokens then
        by_account[account] = by_account[account] or {}
        table.insert(by_account[account], row)
      end
    end
  end
  return by_account
end
