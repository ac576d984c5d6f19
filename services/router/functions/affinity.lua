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
local MOST_KEYS = 1000000 -- in Redis; beyond, affinity keys are deleted early
local LOOK_EVERY = 64     -- affinity keys written between two checks of that
local PAGE = 256          -- keys examined at once

local owners, owners_kept = {}, 0  -- a few resources for each tenant: parsed once
local written = 0                  -- affinity keys since the last check
local cursor = '0'                 -- of the next check

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

-- Deletes up to `count` affinity keys: of a page, the half with the least time left.
-- What is deleted early is found again in SQL. Redis does about the same at `maxmemory`,
-- but this is a bound on the number of keys, and deletes no others.
local function delete_some(count)
  local found, left = {}, {}
  local page = call('SCAN', cursor, 'COUNT', PAGE)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    if string.match(key, '^{rpx}:bound:') or string.match(key, '^{rpx}:session:') then
      found[#found + 1], left[key] = key, call('PTTL', key)
    end
  end
  table.sort(found, function(a, b) return left[a] < left[b] end)
  for i = 1, math.min(count, math.ceil(#found / 2)) do
    call('DEL', found[i])
    local session = string.match(found[i], '^{rpx}:session:(.*)$')
    if session then call('ZREM', TAG .. 'sessions', session) end
  end
end

-- Bounds the affinity keys, whose number clients choose. Called after LOOK_EVERY of them
-- were written.
local function make_room(now)
  local surplus = math.min(call('DBSIZE') - MOST_KEYS, 2 * written)
  written = 0
  call('ZREMRANGEBYSCORE', TAG .. 'sessions', '-inf', now)
  while surplus > 0 do
    delete_some(surplus)
    surplus = surplus - PAGE / 2
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

-- rpx_adopt_v1  ARGV: session ttl ms, id ttl ms, ttl ms of unknown ids, now, then pairs
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
-- ids as in rpx_acquire_v2, digests of the ids. Returns nil or the function's reply.
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

-- rpx_check_v1  ARGV: as refused_ids.  Returns {}, or as rpx_acquire_v2 does
-- {'foreign_id'|'unknown_id', which id} or {'look_up', age}.
local function check(_, args)
  return refused_ids(args, 1) or {}
end

-- rpx_owners_v1  ARGV: names, "session:<digest>" or "bound:<digest>".
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
