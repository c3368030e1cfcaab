package redisq

// Each script stands under its ARGV and what it returns. KEYS[1] only routes
// to the slot. All may run twice with the same arguments.
const (
	// ARGV: id; returns {status} before, or {"over", status}, or {"none"}
	cancelLua = `
local j = load(ARGV[1])
if not j then return {'none'} end
if j.st == 'cancelled' then return {'cancelled'} end
if j.st == 'done' or j.st == 'failed' or j.st == 'quarantined' then return {'over', j.st} end
cancel(j)
return {'cancelled'}`

	// ARGV: id lease progress checkpoint views eventdata viewsdata remaining-ms
	// returns {directive, deadline}
	beatLua = `
local j, why = holder(load(ARGV[1]), ARGV[2])
if not j then return {why, 0} end
local dl = now() + C.lease
set(j, 'dl', dl)
call('ZADD', P .. 'leases', dl, j.id)
call('ZADD', P .. 'seen', 'XX', stamp(), j.wn)
if ARGV[4] ~= '' then set(j, 'ck', ARGV[4]) end
if ARGV[5] ~= '' then
  local old = call('HMGET', j.k, 'vi', 'vb')
  if old[1] ~= ARGV[5] or old[2] ~= j.li then
    set(j, 'vi', ARGV[5])
    set(j, 'vb', j.li)
    event(j, 'views', ARGV[7])
  end
end
if ARGV[3] ~= '' then
  if tonumber(ARGV[8]) > 0 then call('ZADD', P .. 'eta', 'XX', now() + ARGV[8], j.id) end
  if j.pg ~= ARGV[3] then
    set(j, 'pg', ARGV[3])
    if ARGV[6] ~= '' then event(j, 'progress', ARGV[6]) end
  end
end
if switched('worker', j.wn) then return {'drain', dl} end
if j.cl ~= 'bulk' then return {'go on', dl} end
if j.as == j.li then return {'yield', dl} end
if j.yi > 0 and now() - j.yi < C.yieldgap then return {'go on', dl} end
local old = call('ZRANGE', P .. 'wt:interactive', 0, 0, 'WITHSCORES')
if not old[2] or now() - tonumber(old[2]) < C.yieldafter or switched('queue') or switched('class', 'interactive') then return {'go on', dl} end
local info = call('HGET', P .. 'workers', j.wn)
if not info then return {'go on', dl} end
local waiting = 0
for _, po in ipairs(cjson.decode(info).pools) do
  for _, u in ipairs(call('ZRANGE', P .. 'v:interactive:' .. po, 0, 99)) do
    waiting = waiting + call('ZCARD', P .. 'l:interactive:' .. po .. ':' .. u)
  end
end
local soon = call('ZCOUNT', P .. 'eta', stamp(), now() + C.yieldhorizon)
local own = tonumber(call('ZSCORE', P .. 'eta', j.id) or 0)
if own >= now() and own <= now() + C.yieldhorizon then soon = soon - 1 end
-- those already asked to yield will come free too
soon = soon + call('ZCOUNT', P .. 'asked', now() - C.lease, '+inf')
if waiting > soon then
  set(j, 'as', j.li)
  set(j, 'yi', stamp())
  call('ZADD', P .. 'asked', stamp(), j.id)
  return {'yield', dl}
end
return {'go on', dl}`

	// ARGV: id lease kind worker used after-ms rnd json eventdata reason; returns {status} or {"lost"|"cancelled"|…, ""}
	failLua = `
local j, why, x = holder(load(ARGV[1]), ARGV[2])
if not j then
  local st = again(x, ARGV[2], 'fail')
  if st then return {'ok', st} end
  count('refused_' .. why)
  return {why, ''}
end
failed(j, {kind=ARGV[3], worker=ARGV[4] ~= '' and ARGV[4] or j.wk, used=tonumber(ARGV[5]), after=tonumber(ARGV[6]), rnd=tonumber(ARGV[7]), json=ARGV[8], data=ARGV[9], reason=ARGV[10]})
set(j, 'fi', ARGV[2] .. ':fail:' .. j.st)
return {'ok', j.st}`

	// ARGV: id lease reason used checkpoint; returns {"ok"} or {why}
	// An empty id stands for the job that holds the lease, if any.
	backLua = `
local id = ARGV[1]
if id == '' then
  id = call('HGET', P .. 'lids', ARGV[2])
  if not id then return {'ok'} end
end
local j, why, x = holder(load(id), ARGV[2])
if not j then
  if again(x, ARGV[2], 'back') then return {'ok'} end
  count('refused_' .. why)
  return {why}
end
if ARGV[5] ~= '' then set(j, 'ck', ARGV[5]) end
unlease(j, tonumber(ARGV[4]))
if ARGV[3] == 'yield' then set(j, 'yi', stamp()) end
count('given_back_' .. ARGV[3])
toLine(j)
set(j, 'fi', ARGV[2] .. ':back:queued')
return {'ok'}`

	// ARGV: rnd failure-json-prefix; returns {rescued, promoted, dropped, repaired}
	tickLua = `
local rescued, promoted, dropped, repaired = 0, 0, 0, 0
for _, id in ipairs(call('ZRANGE', P .. 'leases', '-inf', '(' .. now(), 'BYSCORE', 'LIMIT', 0, 100)) do
  local j = load(id)
  if j and j.st == 'leased' then
    count('lost')
    failed(j, {kind='crash', worker=j.wk, used=0, after=0, rnd=tonumber(ARGV[1]), json=S.lost .. cjson.encode(j.wk) .. '}'})
    rescued = rescued + 1
  else -- a lease entry without a leased job
    call('ZREM', P .. 'leases', id)
    repaired = repaired + 1
  end
end
for _, id in ipairs(call('ZRANGE', P .. 'later', '-inf', stamp(), 'BYSCORE', 'LIMIT', 0, 100)) do
  call('ZREM', P .. 'later', id)
  local j = load(id)
  if j and j.st == 'scheduled' then
    waits(j, -1)
    toLine(j)
    promoted = promoted + 1
  else
    repaired = repaired + 1
  end
end
for _, st in ipairs({'done', 'failed', 'cancelled', 'quarantined'}) do
  local k = P .. 't:' .. st
  local over = math.min(call('ZCARD', k) - C.keepcount, 100)
  local ids = {}
  if over > 0 then ids = call('ZRANGE', k, 0, over - 1) else ids = call('ZRANGE', k, '-inf', now() - C.keepage, 'BYSCORE', 'LIMIT', 0, 100) end
  for _, id in ipairs(ids) do
    drop(id)
    call('ZREM', k, id)
    count('dropped_' .. st)
    dropped = dropped + 1
  end
end
call('ZREMRANGEBYSCORE', P .. 'asked', '-inf', now() - C.lease)
for _, n in ipairs(call('ZRANGE', P .. 'seen', '-inf', now() - 3600000, 'BYSCORE', 'LIMIT', 0, 100)) do
  call('ZREM', P .. 'seen', n)
  call('HDEL', P .. 'workers', n)
end
local cut = call('XLEN', P .. 'ev') - C.keepevents
if cut > 0 then
  local n = call('XTRIM', P .. 'ev', 'MAXLEN', '~', C.keepevents, 'LIMIT', 1000)
  if n > 0 then count('trimmed', n) end
end
call('XTRIM', P .. 'al', 'MAXLEN', '~', 10000)
return {rescued, promoted, dropped, repaired}`
)
