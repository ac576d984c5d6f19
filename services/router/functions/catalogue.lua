-- The catalogue and the names of all keys.
--
-- Keys read:    catalogue, catalogue:version
-- Keys written: none
--
-- The files of this folder are one library (services/router/function_library.py gives
-- their order). It is the only code that changes routing state. Each call is one
-- atomic step over all gateways. FUNCTION LOAD REPLACE replaces the library under
-- running gateways, so a function with a changed signature gets a new version (_v2) and
-- the old version stays for one release.
-- libs/common/routing/policy.py, circuit_breaker.py and local_state.py are the same
-- rules in Python; tests/integration/routing/test_policy_agrees.py compares the two.
--
-- Keys (libs/common/redis/keys.py has those that Python uses). All share the hash tag
-- {NAMESPACE}, for example {rpx}:
--   catalogue, catalogue:version   the catalogue as JSON, and its content hash
--   born             string Unix ms of the first catalogue since Redis was empty
--   accounts         hash   resource -> account named by the upstream's headers
--   ranking:<pool>   zset   resource -> rank (ranking.lua)
--   leases:<res>     hash   <gateway>/<request> -> lease record (JSON of the request
--                           event so far). Its size is the number in flight.
--                           leases:-waiting has those of requests that wait.
--   retired          set    resources that left the catalogue with leases on them
--   gateways         zset   gateway -> Unix ms of the last heartbeat
--   reaping          set    gateways whose leases the router ends because they are silent
--   reports          hash   gateway -> "ms|ledger report (JSON)" of the last heartbeat
--   impaired:<gw>    string its impaired parts, by commas; set by that gateway, expires
--   health:<res>     hash   state, until, cause, failures, pauses, trial, ...
--   pauses:<model>   string JSON: resource -> cooldown of that model there
--   pauses           zset   model digest -> Unix ms when its last cooldown ends
--   limits:<model>   string msgpack: limits of accounts (account_limits.lua)
--   limits           zset   model digest -> Unix ms when its last limit resets
--   session:<digest> string "resource|account|tenant" of the session, or "-"
--   sessions         zset   session digest -> Unix ms when that key expires
--   bound:<digest>   string "resource|account|tenant" that minted an upstream id, or "-"
--                           (affinity.lua)
--   waiting          string while requests wait (queue.lua); expires
--   queues           set    classes in which requests wait
--   queue:<class>    zset   entry -> virtual start. With |ends, zset: share -> its last
--                           virtual finish; |state, hash: virtual time, counts, due
--                           times; |gateways, zset: gateway -> Unix ms when it asked
--   unproven         set    available resources that have not answered yet
--   proxy_keys       hash   SHA-256 of a proxy key's secret -> key record (JSON)
--   proxy_keys:version      number, increases with each change of that hash
--   prices           string the price list (JSON)
--   instance         string a random name, by which the routers know this Redis
--   spent:<key id>   string msgpack: use of a proxy key in the last minute (limits.lua)
--   recounts         set    subjects whose window has to be summed anew from SQL
--   recount:<subject>       hash   request -> "tokens billionths of a dollar", meanwhile;
--                           behind it the number of an event that was sent again
--   reserving        set    subjects with reservations
--   reserved:<subject>      hash   <gateway>/<request> -> "start of the window, tokens"
--
-- KEYS of the routing functions: 1 catalogue:version, 2 the telemetry stream. Other
-- names are built from the tag, so they are in the same slot.
-- An argument `now` is '' for the server's clock, which skewed gateways cannot affect.
-- Tests pass a number.

-- function_library.py defines NAMESPACE in front of this file: the name of the stack, of
-- this library, and what its functions' names begin with.
local TAG = '{' .. NAMESPACE .. '}:'
local ALL = '*'          -- the pool of all resources; for requests without a pool
local OF_PROVIDER = '@'  -- and the provider id: the pool of its resources, for aliases
local NOTHING = {}
local VERSION = TAG .. 'catalogue:version'

-- redis.call, which is not there yet while the library is loaded. A global is found
-- through a metatable, at ten times the cost of a local name.
local call = nil
call = function(...)
  call = redis.call
  return call(...)
end

-- Text of a number -> the number, of those that recur: tonumber costs as much as reading
-- twenty fields. `numbers[text] or number_of(text)` needs no call for them.
local numbers = {}
local number_of = nil
do
  local kept, most = 0, 1024
  number_of = function(text)
    if kept == most then numbers, kept = {}, 0 end
    local value = tonumber(text)
    numbers[text], kept = value, kept + 1
    return value
  end
end

-- The decoded catalogue, kept between calls. Each call compares its version, a hash of
-- the content, so a stale copy is never used.
local cached = { version = false }

-- The gateway whose last heartbeats found no other one, or false, and how many these were.
-- One such heartbeat is not enough: after Redis was emptied, other gateways may not have
-- registered again. A server that becomes the primary again may have an old value, until
-- the first call of another gateway.
local only, beats_alone = false, 0

local function clock(now)
  if now ~= '' then return tonumber(now) end
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Adds a resource to a pool.
local function join(pools, name, id)
  local pool = pools[name]
  if not pool then
    pool = { ids = {} }
    pools[name] = pool
  end
  pool.ids[#pool.ids + 1] = id
end

-- Returns pool -> key of its ranking. Pools with the same resources share one ranking,
-- so a single pool with all resources uses that of "*".
local function rankings_of(pools)
  local rankings, shared = {}, {}
  local names = {}
  for name in pairs(pools) do names[#names + 1] = name end
  table.sort(names)  -- "*" sorts before pool names, some of which sort before "@..."
  for _, name in ipairs(names) do
    local members = table.concat(pools[name].ids, ' ')
    shared[members] = shared[members] or TAG .. 'ranking:' .. name
    rankings[name] = shared[members]
  end
  return rankings
end

local function add_sibling(accounts, resource)
  local siblings = accounts[resource.account_id] or {}
  siblings[#siblings + 1] = resource.id
  accounts[resource.account_id] = siblings
end

-- Returns the keys of the rankings that a resource is in, each once.
local function distinct(rankings, names)
  local keys, seen = {}, {}
  for _, name in ipairs(names) do
    local key = rankings[name]
    if not seen[key] then keys[#keys + 1], seen[key] = key, true end
  end
  return keys
end

-- Adds to a resource what calls would otherwise compute or format again.
local function prepare(resource)
  resource.leases = TAG .. 'leases:' .. resource.id
  resource.health = TAG .. 'health:' .. resource.id
  resource.owner = resource.id .. '|' .. resource.account_id
  resource.ends_lease = string.format(',"resource_id":"%s","account_id":"%s"}',
    resource.id, resource.account_id)
  resource.shown = string.format('{"resource":"%s","weight":%.6g', resource.id, resource.weight)
  -- Formatted ranks, and candidates as JSON (telemetry.lua).
  resource.ranks, resource.rows, resource.elsewhere, resource.rows_kept = {}, {}, {}, 0
end

-- Returns the names of the pools that a resource is in, its own pool or nil, and the
-- pool of its provider or nil.
local function pools_of(resource)
  local names, pool, provider = { ALL }, resource.pool_id, resource.provider_id
  if pool == cjson.null then pool = nil end
  if provider == cjson.null then provider = nil end
  if pool then names[2] = pool end
  if provider then
    provider = OF_PROVIDER .. provider
    names[#names + 1] = provider
  end
  return names, pool, provider
end

local function index(document, version)
  local parsed = cjson.decode(document)
  local known = {
    version = version, list = parsed.resources, by_id = {}, pools = {},
    -- account -> ids of its resources; `within` the same for each provider, because a
    -- request for a provider's model reaches no state of other providers.
    accounts = {}, within = {},
    all_proven = false, unproven = {}, heaviest = 0,
  }
  local pools = { [ALL] = { ids = {} } }
  for _, resource in ipairs(parsed.resources) do
    local names, pool, provider = pools_of(resource)
    if pool and not pools[pool] then known.pools[#known.pools + 1] = pool end
    if provider then
      known.within[provider] = known.within[provider] or {}
      add_sibling(known.within[provider], resource)
    end
    resource.names, resource.pools = names, {}
    for _, name in ipairs(names) do
      join(pools, name, resource.id)
      resource.pools[name] = true
    end
    prepare(resource)
    known.heaviest = math.max(known.heaviest, resource.weight)
    known.by_id[resource.id] = resource
    add_sibling(known.accounts, resource)
  end
  known.rankings = rankings_of(pools)
  for _, resource in ipairs(parsed.resources) do
    resource.rankings = distinct(known.rankings, resource.names)
  end
  return known
end

-- Returns the decoded catalogue of that version, or nil without one.
local function catalogue(version)
  if not version then return nil end
  if cached.version ~= version then
    local document = call('GET', TAG .. 'catalogue')
    if not document then return nil end
    cached = index(document, version)
  end
  return cached
end

local function current()
  return catalogue(call('GET', VERSION))
end
