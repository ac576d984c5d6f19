-- Affinity: which resource holds a session or minted an upstream id, and for whom.
--
-- Keys read:    session:<digest>, bound:<digest>, born
-- Keys written: session:<digest>, sessions, bound:<digest>
--
-- An owner is stored as "resource|account|tenant"; the tenant is empty for requests
-- without a proxy key. "-" marks an id that SQL does not know either. Versions before
-- tenants stored "resource|account": then SQL knows the tenant.

local UNKNOWN = '-'
local OWNERS_KEPT = 4096  -- parsed owners
local MOST_KEYS = 1000000 -- of a stack; beyond, affinity keys are deleted early
local LOOK_EVERY = 64     -- affinity keys written between two checks of that
local PAGE = 256          -- keys examined at once

local owners, owners_kept = {}, 0  -- a few resources for each tenant: parsed once
local written = 0                  -- affinity keys since the last check

local function parse_owner(text)
  local resource, account, tenant = string.match(text, '^([^|]*)|(.*)|([^|]*)$')
  if not resource then resource, account = string.match(text, '^([^|]*)|(.*)$') end
  if owners_kept == OWNERS_KEPT then owners, owners_kept = {}, 0 end
  local owner = { resource = resource, account = account, tenant = tenant }
  owners[text], owners_kept = owner, owners_kept + 1
  return owner
end

-- Returns the resource, account and tenant of a stored owner. The tenant is nil when a
-- version before tenants stored it.
local function owner_of(text)
  return owners[text] or parse_owner(text)
end

-- Returns the first known owner of the bound ids, which decide where a request goes.
-- Else nil and whether SQL was not asked for some of them.
local function bound_owner(ask)
  local unsought = ask.account_bound and ask.named ~= '' and not ask.session
  for i = ask.first_id, ask.first_id + ask.bound - 1 do
    local value = ask.ids[i]
    if value and value ~= UNKNOWN then return value end
    unsought = unsought or not value
  end
  return nil, unsought
end

-- Checks that the tenant may name its ids. Returns nil and whether SQL must be asked for
-- the owner of some of them first. Else returns 'foreign_id' (another tenant's) or
-- 'unknown_id' (minted for nobody), and which id, counted from 0.
-- libs/common/routing/policy.py has the same rule (foreign_id).
local function foreign_id(ask)
  local isolated, unsought = ask.kinds ~= '', false
  for i = 1, ask.count do
    local value, owner = ask.ids[ask.first_id - 1 + i], nil
    local sought = ask.resolved or not isolated
    if value == UNKNOWN then
      sought = true
    elseif value then
      owner = owner_of(value).tenant
      sought = sought or owner ~= nil
    end
    if not sought then
      unsought = true
    elseif owner then
      if owner ~= ask.tenant and (owner ~= '' or ask.strict) then
        return 'foreign_id', i - 1
      end
    elseif ask.strict and string.sub(ask.kinds, i, i) == 'n' then
      return 'unknown_id', i - 1
    end
  end
  return nil, unsought
end

-- Returns for how many ms Redis has had content: a young one may not have learned all
-- affinity yet.
local function age()
  return string.format('%.0f', clock('') - tonumber(call('GET', TAG .. 'born') or 0))
end

-- Bounds the affinity keys, whose number clients choose. Called after LOOK_EVERY of them
-- were written.
local make_room = nil
do
  local BOUND, SESSION = '^' .. TAG .. 'bound:', '^' .. TAG .. 'session:(.*)$'
  local SAMPLE = 64 * PAGE   -- names that say how many of all keys are this stack's
  local cursor = '0'         -- of the next page
  local passed, ours = 0, 0  -- names of all stacks in the last pages, and this one's

  -- Returns the names of this stack among the next PAGE ones.
  local function page()
    local found = call('SCAN', cursor, 'MATCH', TAG .. '*', 'COUNT', PAGE)
    cursor = found[1]
    if cursor ~= '0' then  -- the last page is shorter
      if passed >= SAMPLE then passed, ours = passed / 2, ours / 2 end
      passed, ours = passed + PAGE, ours + #found[2]
    end
    return found[2]
  end

  -- Returns how many of `total` keys are this stack's: on a Cluster those of its slot,
  -- else an estimate.
  local function own(total)
    local slot = redis.pcall('CLUSTER', 'KEYSLOT', TAG)
    local count = type(slot) == 'number' and redis.pcall('CLUSTER', 'COUNTKEYSINSLOT', slot)
    if type(count) == 'number' then return count end
    return passed == 0 and total or total * math.min(1, ours / passed)
  end

  -- Deletes up to `count` affinity keys: of these names, the half with the least time left.
  -- What is deleted early is found again in SQL. Redis does about the same at
  -- `maxmemory`, but this is a bound on the number of keys, and deletes no others.
  -- Returns how many.
  local function delete_some(names, count)
    local found, left = {}, {}
    for _, key in ipairs(names) do
      if string.match(key, BOUND) or string.match(key, SESSION) then
        found[#found + 1], left[key] = key, call('PTTL', key)
      end
    end
    table.sort(found, function(a, b) return left[a] < left[b] end)
    count = math.min(count, math.ceil(#found / 2))
    for i = 1, count do
      call('DEL', found[i])
      local session = string.match(found[i], SESSION)
      if session then call('ZREM', TAG .. 'sessions', session) end
    end
    return count
  end

  make_room = function(now)
    local most = 2 * written
    written = 0
    call('ZREMRANGEBYSCORE', TAG .. 'sessions', '-inf', now)
    local total = call('DBSIZE')
    if total <= MOST_KEYS then return end
    local names = page()
    local surplus = math.min(own(total) - MOST_KEYS, most)
    -- Enough where only one name of sixteen is this stack's.
    local pages = 8 * math.ceil(most / (PAGE / 2))
    while surplus > 0 and pages > 0 do
      surplus, pages = surplus - delete_some(names, surplus), pages - 1
      if surplus > 0 then names = page() end
    end
  end
end

-- Stores the owner of an id. An id stays with the tenant that minted it, because a
-- later response may repeat ids that its client chose.
local function learn(digest, owner, tenant, ttl)
  local key = TAG .. 'bound:' .. digest
  local before = call('SET', key, owner, 'PX', ttl, 'GET')
  if before and before ~= owner and before ~= UNKNOWN then
    local minter = owner_of(before).tenant
    if minter and minter ~= tenant then call('SET', key, before, 'PX', ttl) end
  end
end

-- Functions --------------------------------------------------------------------------

-- adopt_v1  ARGV: session ttl ms, id ttl ms, ttl ms of unknown ids, now, then pairs
-- of "session:<digest>" or "bound:<digest>" and owner or "-".
-- Stores what SQL said. A stored owner is newer and stays, unless a version before
-- tenants stored it. Returns how many were new.
local function adopt(_, args)
  local fresh, now = 0, clock(args[4])
  for i = 5, #args, 2 do
    local name, owner = args[i], args[i + 1]
    local session = string.match(name, '^session:(.*)$')
    local ttl = owner == UNKNOWN and args[3] or (session and args[1] or args[2])
    local there = call('GET', TAG .. name)
    local poor = there and (there == UNKNOWN or not owner_of(there).tenant)
    if not there or (poor and owner ~= UNKNOWN) then
      call('SET', TAG .. name, owner, 'PX', ttl)
      if session and owner ~= UNKNOWN then
        call('ZADD', TAG .. 'sessions', now + tonumber(ttl), session)
      end
      fresh = fresh + 1
    end
  end
  written = written + fresh
  if written >= LOOK_EVERY then make_room(now) end
  return fresh
end

-- foreign_id for functions that do not choose a resource, with the arguments from
-- `first` on: was SQL asked for unknown ids 0|1, tenant or '', strict 0|1, kinds of the
-- ids as in acquire_v2, digests of the ids. Returns nil or the function's reply.
local function refused_ids(args, first)
  local count = #args - first - 3
  if count < 1 then return nil end
  local names = {}
  for i = 1, count do names[i] = TAG .. 'bound:' .. args[first + 3 + i] end
  local why, which = foreign_id({
    resolved = args[first] == '1', tenant = args[first + 1], strict = args[first + 2] == '1',
    kinds = args[first + 3], count = count, first_id = 1,
    ids = call('MGET', unpack(names)),
  })
  if why then return { why, tostring(which) } end
  return which and { 'look_up', age() } or nil
end

-- check_v1  ARGV: as refused_ids.  Returns {}, or as acquire_v2 does
-- {'foreign_id'|'unknown_id', which id} or {'look_up', age}.
local function check(_, args)
  return refused_ids(args, 1) or {}
end

-- owners_v1  ARGV: names, "session:<digest>" or "bound:<digest>".
-- Returns for each of them its owner or '', and the ms for which it is kept.
local function owners_of(_, args)
  local found = {}
  for i, name in ipairs(args) do
    local owner = call('GET', TAG .. name)
    local known = owner and owner ~= UNKNOWN
    found[2 * i - 1] = known and owner or ''
    found[2 * i] = known and call('PTTL', TAG .. name) or 0
  end
  return found
end
