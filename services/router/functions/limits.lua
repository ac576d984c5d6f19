-- Proxy keys: their table, and the limits of each key.
--
-- Keys read:    proxy_keys:version, spent:<key id>
-- Keys written: proxy_keys, proxy_keys:version, spent:<key id>

-- A key's use is counted in slots of SLOT_MS. The current slot and the SLOTS - 1 before
-- it span between one minute and one minute plus a slot, and all of them count in full.
-- So no 60 s contain more requests than the limit, wherever they begin; a key that stays
-- at its limit gets 12/13 of it. A token bucket, or two buckets of a minute, would allow
-- twice the limit in some minutes.
local SLOT_MS = 5000
local SLOTS = 13

-- Returns the counts up to `slot`, a flat array: the newest slot's number, requests of
-- each slot, tokens of each slot. Slot n is at place n % SLOTS.
local function roll_spent(spent, slot)
  if not spent or slot - spent[1] >= SLOTS then
    spent = { slot }
    for i = 2, 2 * SLOTS + 1 do spent[i] = 0 end
    return spent
  end
  for passed = spent[1] + 1, slot do
    local place = 2 + passed % SLOTS
    spent[place], spent[place + SLOTS] = 0, 0
  end
  if slot > spent[1] then spent[1] = slot end  -- clocks may step back
  return spent
end

local function write_spent(key, spent)
  call('SET', key, cmsgpack.pack(spent), 'PX', SLOT_MS * SLOTS)
end

-- Returns the ms until less than `limit` is counted; 0 when that is so now. `first`: the
-- place before the counts.
local function wait_for(spent, first, limit, now)
  local counted = 0
  for i = 1, SLOTS do counted = counted + spent[first + i] end
  local newest, wait = spent[1], 0
  for slot = newest - SLOTS + 1, newest do  -- the oldest leaves first
    if counted < limit then break end
    counted = counted - spent[first + 1 + slot % SLOTS]
    wait = (slot + SLOTS) * SLOT_MS - now
  end
  return wait
end

-- limits_v1  For gateways of a version before budgets, as spend_v1.
--   KEYS: 1 spent:<key id>.  ARGV: key id, requests per minute or '',
--   tokens per minute or '', now.
-- Counts a request (not an attempt) of a key and returns {}. Over a limit it counts
-- nothing and returns {'requests'|'tokens', ms to wait}. Tokens are known when a
-- response ends, so that limit stops later requests, not those under way.
local function limits(keys, args)
  local requests, tokens, now = args[2], args[3], clock(args[4])
  if requests == '' and tokens == '' then return {} end
  local spent = budgets.minute(args[1], now)
  local wait = requests ~= '' and wait_for(spent, 1, tonumber(requests), now) or 0
  if wait > 0 then return { 'requests', wait } end
  wait = tokens ~= '' and wait_for(spent, 1 + SLOTS, tonumber(tokens), now) or 0
  if wait > 0 then return { 'tokens', wait } end
  budgets.count(args[1], spent, 1, 0)
  return {}
end

-- spend_v1  KEYS: 1 spent:<key id>.  ARGV: key id, tokens of a response, now.
local function spend(keys, args)
  local tokens = tonumber(args[2])
  if tokens <= 0 then return 1 end
  budgets.count(args[1], budgets.minute(args[1], clock(args[3])), 0, tokens)
  return 1
end

-- keys_v1  KEYS: 1 proxy_keys:version.  ARGV: the version that the caller saw or '',
--   number of hashes to delete, those hashes, then pairs of hash and record.
-- Changes the table if it still has that version: what the caller read in SQL since is
-- at least as new as the table. Returns the new version, else ''. Versions begin with
-- the clock, so none repeats after Redis was emptied.
local function change_keys(keys, args)
  local version, records = call('GET', keys[1]), TAG .. 'proxy_keys'
  if (version or '') ~= args[1] then return '' end
  if not version then call('DEL', records) end
  local gone = tonumber(args[2])
  for i = 3, 2 + gone do call('HDEL', records, args[i]) end
  -- In parts: Lua's stack does not hold ten thousand arguments.
  for i = 3 + gone, #args, 1000 do
    call('HSET', records, unpack(args, i, math.min(i + 999, #args)))
  end
  local after = version and tonumber(version) + 1 or clock('')
  call('SET', keys[1], string.format('%.0f', after))
  return string.format('%.0f', after)
end
