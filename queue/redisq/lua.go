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
local dl, left = now() + C.lease, 0
j.du, j.new = dl, true
call('ZADD', P .. 'seen', 'XX', stamp(), j.wn)
if ARGV[4] ~= '' then set(j, 'ck', ARGV[4]) end
if ARGV[5] ~= '' then
  local old = call('HMGET', P .. 'jh:' .. j.id, 'vi', 'vb')
  if old[1] ~= ARGV[5] or old[2] ~= j.li then
    set(j, 'vi', ARGV[5])
    set(j, 'vb', j.li)
    event(j, 'views', ARGV[7])
  end
end
if ARGV[3] ~= '' then
  left = tonumber(ARGV[8])
  if j.pg ~= ARGV[3] then
    set(j, 'pg', ARGV[3])
    if ARGV[6] ~= '' then event(j, 'progress', ARGV[6]) end
  end
end
local entry, eta, _ = call('HGET', P .. 'leases', j.li), 0
if entry then _, _, eta = struct.unpack('@lease.f', entry) end
if eta > 0 and left > 0 then eta = now() + left end
call('HSET', P .. 'leases', j.li, struct.pack('@lease.f', j.cl == 'bulk' and 1 or 0, dl, eta) .. j.id)
if switched('worker', j.wn) then return {'drain', dl} end
if j.cl ~= 'bulk' then return {'go on', dl} end
if j.as == 1 then return {'yield', dl} end
if j.yi > 0 and now() - j.yi < C.yieldgap then return {'go on', dl} end
local old = oldest('interactive')
if not old or now() - old < C.yieldafter or switched('queue') or switched('class', 'interactive') then return {'go on', dl} end
local info = call('HGET', P .. 'workers', j.wn)
if not info then return {'go on', dl} end
local waiting = 0
for _, po in ipairs(cjson.decode(info).pools) do
  for _, u in ipairs(call('ZRANGE', P .. 'v:interactive:' .. po, 0, 99)) do
    waiting = waiting + call('LLEN', P .. 'l:interactive:' .. po .. ':' .. u)
  end
end
local soon = 0
for _, entry in ipairs(call('HVALS', P .. 'leases')) do
  local @lease, pos = struct.unpack('@lease.f', entry)
  if eta >= now() and eta <= now() + C.yieldhorizon and string.sub(entry, pos) ~= j.id then soon = soon + 1 end
end
-- those already asked to yield will come free too
soon = soon + call('ZCOUNT', P .. 'asked', now() - C.lease, '+inf')
if waiting > soon then
  j.as, j.new = 1, true
  set(j, 'yi', stamp())
  call('ZADD', P .. 'asked', stamp(), j.id)
  return {'yield', dl}
end
return {'go on', dl}`

	// ARGV: id lease kind worker used after-ms rnd json eventdata reason exit; returns {status} or {"lost"|"cancelled"|…, ""}
	failLua = `
local j, why, x = holder(load(ARGV[1]), ARGV[2])
if not j then
  local st = again(x, ARGV[2], 'fail')
  if st then return {'ok', st} end
  count('refused_' .. why)
  return {why, ''}
end
failed(j, {kind=ARGV[3], worker=ARGV[4] ~= '' and ARGV[4] or j.wk, used=tonumber(ARGV[5]), after=tonumber(ARGV[6]), rnd=tonumber(ARGV[7]), json=ARGV[8], data=ARGV[9], reason=ARGV[10], exit=ARGV[11]})
set(j, 'fi', ARGV[2] .. ':fail:' .. j.st)
return {'ok', j.st}`

	// ARGV: id lease reason used checkpoint; returns {"ok"} or {why}
	// An empty id stands for the job that holds the lease, if any.
	backLua = `
local id = ARGV[1]
if id == '' then
  local entry = call('HGET', P .. 'leases', ARGV[2])
  if not entry then return {'ok'} end
  local @lease, pos = struct.unpack('@lease.f', entry)
  id = string.sub(entry, pos)
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
event(j, 'waiting')
set(j, 'fi', ARGV[2] .. ':back:queued')
return {'ok'}`

	// ARGV: rnd failure-json-prefix; returns {rescued, promoted, dropped, repaired}
	tickLua = `
local rescued, promoted, dropped, repaired = 0, 0, 0, 0
local part = call('HSCAN', P .. 'leases', call('GET', P .. 'scan') or '0', 'COUNT', 1000)
call('SET', P .. 'scan', part[1])
local due = {}
for i = 1, #part[2], 2 do
  local @lease, pos = struct.unpack('@lease.f', part[2][i+1])
  if dl < now() then due[#due+1] = {dl=dl, li=part[2][i], id=string.sub(part[2][i+1], pos)} end
end
table.sort(due, function(a, b) return a.dl < b.dl end)
for i = 1, math.min(#due, 100) do
  local j = load(due[i].id)
  if j and j.st == 'leased' and j.li == due[i].li then
    count('lost')
    failed(j, {kind='crash', worker=j.wk, used=0, after=0, rnd=tonumber(ARGV[1]), json=S.lost .. cjson.encode(j.wk) .. '}'})
    rescued = rescued + 1
  else -- a lease entry without a leased job
    call('HDEL', P .. 'leases', due[i].li)
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
-- Records end by themselves; their keys are looked for as Redis looks for what has ended.
for _, k in ipairs(call('ZRANDMEMBER', P .. 'sx', 20)) do
  if call('EXISTS', P .. 's:' .. k) == 0 then call('ZREM', P .. 'sx', k) end
end
return {rescued, promoted, dropped, repaired}`
)
