package redisq

// Scripts of operators, batches, readers and State.
const (
	// ARGV: on|off scope name json; returns {"ok"} or {"none"} or {"state", st}
	switchLua = `
local on, scope, name = ARGV[1] == 'on', ARGV[2], ARGV[3]
local f = scope .. ':' .. name
if scope == 'batch' then
  local k = P .. 'b:' .. name
  local st = call('HGET', k, 'st')
  if not st then return {'none'} end
  if on then
    if st ~= 'running' and st ~= 'paused' then return {'state', st} end
    call('HSET', k, 'st', 'paused')
  elseif st == 'paused' then call('HSET', k, 'st', 'running') end
  if on or st == 'paused' then
    for _, id in ipairs(call('LRANGE', P .. 'xb:' .. name, 0, -1)) do
      local j = load(id)
      if j and j.st == 'queued' and on and j.hd == 0 then
        lineRemove(j)
        j.hd, j.new = 1, true
        call('ZADD', P .. 'held', int(j.sq), id)
      elseif j and j.st == 'queued' and not on and j.hd == 1 then
        j.hd, j.new = 0, true
        call('ZREM', P .. 'held', id)
        lineAdd(j)
      end
    end
  end
end
if on then call('HSETNX', P .. 'sw', f, cjson.encode({why = ARGV[4], since = now()}))
else call('HDEL', P .. 'sw', f) end
size('sw')
if scope == 'user' then
  local x = U(name)
  x.pz, x.new = on and 1 or 0, true
  reseat(name)
elseif not on then
  for po in pools() do wake(po) end
end
return {'ok'}`

	// ARGV: id; returns {"ok"} | {"none"} | {"state", st}
	requeueLua = `
local j = load(ARGV[1])
if not j then return {'none'} end
if j.st ~= 'failed' and j.st ~= 'cancelled' and j.st ~= 'quarantined' then return {'state', j.st} end
if call('HDEL', P .. 'poison', j.fp) == 1 then size('poison') end
call('ZREM', P .. 't:' .. j.st, j.id)
if j.ba ~= '' then
  local k = P .. 'b:' .. j.ba
  call('LREM', P .. 'tb:' .. j.ba .. ':' .. j.st, 1, j.id)
  call('SETBIT', P .. 'bf:' .. j.ba, j.ln, 0)
  call('HDEL', P .. 'bw:' .. j.ba, j.ln)
  call('HINCRBY', k, 'out', 1)
  local f = j.st == 'cancelled' and 'cn' or 'fd'
  if call('HINCRBY', k, f, -1) < 0 then call('HSET', k, f, 0) end
  if call('HGET', k, 'st') == 'ended' then call('HSET', k, 'st', 'running') end
  call('HSET', k, 'en', 0)
end
for _, f in ipairs({'fa', 'cr', 'di', 'cw', 'fl', 'pg'}) do set(j, f, '') end
j.fa, j.cr, j.di, j.cw, j.en, j.new = 0, 0, 0, '', 0, true
toLine(j)
count('requeued')
event(j, 'accepted', '{"stage":"queued"}')
return {'ok'}`

	// ARGV: id; returns 1 or 0 (no job)
	releaseLua = `
local j = load(ARGV[1])
if not j then return 0 end
if call('HDEL', P .. 'poison', j.fp) == 1 then size('poison') end
return 1`

	// ARGV: user weight
	weightLua = `
local x = U(ARGV[1])
x.w, x.new = tonumber(ARGV[2]), true
return 1`

	// ARGV: user id…; deletes those of the ids that are terminal; returns them
	forgetLua = `
local out = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local j = load(id)
  if j and j.us == ARGV[1] and (j.st == 'done' or j.st == 'failed' or j.st == 'cancelled' or j.st == 'quarantined') then
    local ok, r = pcall(cjson.decode, call('GET', P .. 'jr:' .. id))
    if ok and r.key then call('DEL', P .. 'i:' .. r.key) end
    drop(id)
    out[#out+1] = id
  end
end
local x = U(ARGV[1])
if x.qd <= 0 and x.rn <= 0 and x.pz == 0 then call('DEL', x.k) end
return out`

	// ARGV: id; returns false or {"status", status, sort} or
	// {"queued", vt, weight, ahead, est, prior, held, more, {vt weight n}…, etas…, …} as a flat list of lists
	placeLua = `
local j = load(ARGV[1])
if not j then return false end
local d = call('LRANGE', P .. 'd:' .. j.so, 0, C.samples - 1)
if j.st ~= 'queued' then return {j.st, d} end
local x = U(j.us)
local ahead = call('LPOS', P .. 'l:' .. j.cl .. ':' .. j.po .. ':' .. j.us, j.id) or 0
local others = {}
local z = call('ZRANGE', P .. 'v:' .. j.cl .. ':' .. j.po, 0, C.others - 1, 'WITHSCORES')
for i = 1, #z, 2 do
  if z[i] ~= j.us then
    others[#others+1] = z[i+1]
    others[#others+1] = call('LLEN', P .. 'l:' .. j.cl .. ':' .. j.po .. ':' .. z[i])
    others[#others+1] = tostring(weight(U(z[i])))
  end
end
local prior = 0
if j.cl == 'bulk' then
  for _, o in ipairs(call('ZRANGE', P .. 'v:interactive:' .. j.po, 0, C.others - 1)) do prior = prior + call('LLEN', P .. 'l:interactive:' .. j.po .. ':' .. o) end
end
local held = ''
if switched('queue') then held = 'queue' elseif switched('class', j.cl) then held = 'class ' .. j.cl
elseif switched('user', j.us) then held = 'user' elseif j.hd == 1 then held = 'batch' end
local busy, etas = {}, {}
for _, entry in ipairs(call('HVALS', P .. 'leases')) do
  local @lease, pos = struct.unpack('@lease.f', entry)
  if eta > 0 then busy[#busy+1] = {eta, j.cl == 'interactive' and bulk == 1 and '1' or '0'} end
end
table.sort(busy, function(a, b) return a[1] < b[1] end)
for i = 1, math.min(#busy, 1000) do
  etas[#etas+1] = int(busy[i][1])
  etas[#etas+1] = busy[i][2]
end
local slots = 0
for _, w in ipairs(call('ZRANGE', P .. 'seen', now() - math.max(3 * C.lease, 15000), '+inf', 'BYSCORE', 'LIMIT', 0, 1000)) do
  local info = call('HGET', P .. 'workers', w)
  if info and not switched('worker', w) then
    for _, po in ipairs(cjson.decode(info).pools) do if po == j.po then slots = slots + 1 end end
  end
end
return {'queued', d, tostring(math.max(x['vt' .. ab(j.cl)], 0)), tostring(weight(x)), ahead, tostring(estimate(j.so, j.po)), others, #z >= 2 * C.others and 1 or 0, prior, held, etas, stamp(), slots}`

	// returns a flat picture for Stats
	statsLua = `
local out = {}
local function put(k, v) out[#out+1] = k; out[#out+1] = tostring(v) end
put('now', stamp())
local users = {interactive = {}, bulk = {}}
for _, cl in ipairs({'interactive', 'bulk'}) do
  put('queued:' .. cl, total()['in' .. ab(cl)])
  local old = oldest(cl)
  if old then put('oldest:' .. cl, int(old)) end
  local n, most = 0, 0
  for po in pools() do
    local c = call('ZCARD', P .. 'v:' .. cl .. ':' .. po) + call('ZCARD', P .. 'vp:' .. cl .. ':' .. po)
    if c <= 1000 then
      for _, z in ipairs({'v', 'vp'}) do
        for _, u in ipairs(call('ZRANGE', P .. '' .. z .. ':' .. cl .. ':' .. po, 0, -1)) do
          if not users[cl][u] then users[cl][u] = true; n = n + 1 end
        end
      end
    else most = math.max(most, c) end
  end
  put('users:' .. cl, math.max(n, most))
end
put('held', call('ZCARD', P .. 'held'))
put('scheduled', call('ZCARD', P .. 'later'))
local x, overdue = total(), 0
put('c:submitted', int(x.seq))
put('c:leases', int(x.leases))
put('c:done', int(x.done))
put('leased', call('HLEN', P .. 'leases'))
for _, entry in ipairs(call('HVALS', P .. 'leases')) do
  local @lease, pos = struct.unpack('@lease.f', entry)
  if dl < now() then overdue = overdue + 1 end
end
put('overdue', overdue)
for _, st in ipairs({'done', 'failed', 'cancelled', 'quarantined'}) do put('ended:' .. st, call('ZCARD', P .. 't:' .. st)) end
local c = call('HGETALL', P .. 'c')
for i = 1, #c, 2 do put('c:' .. c[i], c[i+1]) end
local sw = call('HGETALL', P .. 'sw')
for i = 1, #sw, 2 do put('sw:' .. sw[i], sw[i+1]) end
for _, w in ipairs(call('ZRANGE', P .. 'seen', now() - math.max(3 * C.lease, 15000), '+inf', 'BYSCORE', 'LIMIT', 0, 1000)) do
  put('w:' .. call('ZSCORE', P .. 'seen', w), call('HGET', P .. 'workers', w) or '')
end
local e = call('HKEYS', P .. 'est')
for i = 1, math.min(#e, 200) do put('d:' .. e[i], table.concat(call('LRANGE', P .. 'd:' .. e[i], 0, C.samples - 1), ' ')) end
local cur = call('HGETALL', P .. 'cur')
for i = 1, #cur, 2 do
  local s = string.sub(cur[i], 1, 7) == 'alerts/' and 'al' or 'ev'
  put('o:' .. cur[i], #call('XRANGE', P .. '' .. s, '(' .. cur[i+1], '+', 'COUNT', 1000))
end
return out`

	// returns the ids of the leased jobs
	leasedLua = `
local out = {}
for i, entry in ipairs(call('HVALS', P .. 'leases')) do
  local @lease, pos = struct.unpack('@lease.f', entry)
  out[i] = string.sub(entry, pos)
end
return out`

	// ARGV: consumer stream; returns its cursor, registering the stream's end for a new one
	cursorLua = `
local c = call('HGET', P .. 'cur', ARGV[1])
if c then return c end
local e = call('XREVRANGE', P .. '' .. ARGV[2], '+', '-', 'COUNT', 1)
c = e[1] and e[1][1] or '0-0'
call('HSET', P .. 'cur', ARGV[1], c)
return c`

	// ARGV: consumer cursor; moves forward only
	ackLua = `
local function parse(s)
  local a, b = string.match(s, '^(%d+)%-?(%d*)$')
  return tonumber(a), tonumber(b) or 0
end
local a, b = parse(ARGV[2])
local c = call('HGET', P .. 'cur', ARGV[1])
if c then
  local x, y = parse(c)
  if a < x or (a == x and b <= y) then return 0 end
end
call('HSET', P .. 'cur', ARGV[1], ARGV[2])
return 1`

	// ARGV: code key firing 0|1 json nonce
	raiseLua = `
local f = ARGV[1] .. '\n' .. ARGV[2]
if ARGV[3] == '1' then call('HSET', P .. 'firing', f, ARGV[4]) else call('HDEL', P .. 'firing', f) end
if call('SET', P .. 'o:' .. ARGV[5], '1', 'NX', 'PX', 60000) then call('XADD', P .. 'al', '*', 'd', ARGV[4]) end
return 1`

	// ARGV: key value expected version life; returns 1 or 0 (conflict)
	putLua = `
local k = P .. 's:' .. ARGV[1]
local have = call('HGET', k, 'ver')
if have ~= ARGV[4] then
  if ARGV[3] ~= '*' and (have or '') ~= ARGV[3] then return 0 end
  call('HSET', k, 'v', ARGV[2], 'ver', ARGV[4])
  if tonumber(ARGV[5]) > 0 then call('PEXPIRE', k, ARGV[5]) else call('PERSIST', k) end
  call('ZADD', P .. 'sx', 0, ARGV[1])
end
return 1`

	// ARGV: key expected; returns 1 or 0 (conflict)
	deleteLua = `
local k = P .. 's:' .. ARGV[1]
local have = call('HGET', k, 'ver')
if have and ARGV[2] ~= '*' and have ~= ARGV[2] then return 0 end
call('DEL', k)
call('ZREM', P .. 'sx', ARGV[1])
return 1`

	// ARGV: min max; returns live keys and drops dead ones from the index
	keysLua = `
local out = {}
local lo = ARGV[1]
while #out < 1000 do
  local ks = call('ZRANGE', P .. 'sx', lo, ARGV[2], 'BYLEX', 'LIMIT', 0, 1000)
  for _, k in ipairs(ks) do
    if call('EXISTS', P .. 's:' .. k) == 1 then
      if #out < 1000 then out[#out+1] = k end
    else call('ZREM', P .. 'sx', k) end
  end
  if #ks < 1000 then break end
  lo = '(' .. ks[#ks]
end
return out`

	// ARGV: key delta limit life token; returns {sum} or {sum, "quota"}
	addLua = `
local k, o = P .. 'n:' .. 'state/' .. ARGV[1], P .. 'o:' .. ARGV[5]
local had = call('GET', o)
if had then return {tonumber(had)} end
local n = tonumber(call('GET', k) or 0)
local d, lim = tonumber(ARGV[2]), tonumber(ARGV[3])
if lim > 0 and n + d > lim then return {n, 'quota'} end
if d ~= 0 then
  local fresh = call('EXISTS', k) == 0
  n = call('INCRBY', k, ARGV[2])
  if fresh and tonumber(ARGV[4]) > 0 then call('PEXPIRE', k, ARGV[4]) end
  call('SET', o, n, 'PX', 60000)
end
return {n}`

	// ARGV: id; returns 1 or 0
	refundLua = `
local j = load(ARGV[1])
if not j then return 0 end
j.qt, j.new = refund(j.qt, true), true
return 1`

	// ARGV: lock|renew|unlock name token life; returns the number, or -1
	lockLua = `
local k = P .. 'lk:' .. ARGV[2]
local v = call('HMGET', k, 'tk', 'no', 'un')
local mine, live = v[1] == ARGV[3], tonumber(v[3] or 0) > now()
if ARGV[1] == 'unlock' then
  if mine then call('HSET', k, 'un', 0) end
  return 0
end
if mine and live then
  call('HSET', k, 'un', now() + ARGV[4])
  return tonumber(v[2])
end
if ARGV[1] == 'renew' or live then return -1 end
local n = tonumber(v[2] or 0) + 1
call('HSET', k, 'tk', ARGV[3], 'no', n, 'un', now() + ARGV[4])
return n`

	// ARGV: id body owner total origin name private; returns 1 if new
	batchCreateLua = `
local k = P .. 'b:' .. ARGV[1]
if call('EXISTS', k) == 1 then return 0 end
call('HSET', k, 'body', ARGV[2], 'own', ARGV[3], 'tot', ARGV[4], 'or', ARGV[5], 'nm', ARGV[6], 'pv', ARGV[7], 'st', 'running',
  'cu', 0, 'rd', 0, 'rl', 0, 'out', 0, 'dn', 0, 'fd', 0, 'cn', 0, 'crt', stamp(), 'en', 0)
call('ZADD', P .. 'batches', stamp(), ARGV[1])
call('ZADD', P .. 'bo:' .. ARGV[3], stamp(), ARGV[1])
batchCheck(ARGV[1])
return 1`

	// ARGV: batch from to redo n {id req fixed}…; returns {"ok"} or {"none"} or {"conflict", state, cursor}
	feedLua = `
local ba, from, to, redo = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local k = P .. 'b:' .. ba
local b = call('HMGET', k, 'st', redo and 'rd' or 'cu', 'rl')
if not b[1] then return {'none'} end
local cur = tonumber(b[2])
if b[1] == 'running' and cur == to and to > from then return {'ok'} end
if b[1] ~= 'running' or cur ~= from or (redo and tonumber(b[3]) == 0) then return {'conflict', b[1], cur} end
local n, new = tonumber(ARGV[5]), 0
for i = 6, 3 + 3 * n, 3 do
  local id, m = ARGV[i], ARGV[i+2]
  if redo then
    local st = call('GET', P .. 'j:' .. id)
    st = st and STATUS[string.byte(st)]
    if st == 'failed' or st == 'quarantined' then
      call('LREM', P .. 'tb:' .. ba .. ':' .. st, 1, id)
      drop(id)
    end
    local @fixed = struct.unpack('@fixed.f', m)
    call('SETBIT', P .. 'br:' .. ba, ln, 0)
    if call('HDEL', P .. 'poison', fp) == 1 then size('poison') end
  end
  if call('EXISTS', P .. 'j:' .. id) == 0 then
    enqueue(id, ARGV[i+1], m)
    new = new + 1
  end
end
if redo then
  call('HSET', k, 'rd', to)
  call('HINCRBY', k, 'rl', -n)
else call('HSET', k, 'cu', to) end
call('HINCRBY', k, 'out', new)
batchCheck(ba)
return {'ok'}`

	// ARGV: batch; cancels up to 200 live jobs; returns {"ok", left} | {"none"} | {"ended"} | {"again"}
	batchCancelLua = `
local ba = ARGV[1]
local k = P .. 'b:' .. ba
local st = call('HGET', k, 'st')
if not st then return {'none'} end
if st == 'ended' then return {'ended'} end
if st == 'cancelled' and call('HGET', k, 'en') ~= '0' then return {'ok', 0} end
call('HSET', k, 'st', 'cancelled')
local n, left = 0, 0
for _, id in ipairs(call('LRANGE', P .. 'xb:' .. ba, 0, -1)) do
  local s = call('GET', P .. 'j:' .. id)
  if s and string.byte(s) <= 3 then -- queued, scheduled or leased
    if n < 200 then
      cancel(load(id))
      n = n + 1
    else left = left + 1 end
  end
end
if left == 0 then
  local b = call('HMGET', k, 'tot', 'dn', 'fd')
  call('HSET', k, 'cn', b[1] - b[2] - b[3], 'rl', 0)
  batchEvent(ba, 'cancelled')
end
return {'ok', left}`

	// ARGV: batch; returns {"ok", n} | {"none"} | {"cancelled"}
	batchRetryLua = `
local ba = ARGV[1]
local k = P .. 'b:' .. ba
local b = call('HMGET', k, 'st', 'rl', 'fd')
if not b[1] then return {'none'} end
if b[1] == 'cancelled' then return {'cancelled'} end
if tonumber(b[2]) > 0 then return {'ok', tonumber(b[2])} end
local n = tonumber(b[3])
if n == 0 then return {'ok', 0} end
call('DEL', P .. 'br:' .. ba, P .. 'bw:' .. ba)
if call('EXISTS', P .. 'bf:' .. ba) == 1 then call('RENAME', P .. 'bf:' .. ba, P .. 'br:' .. ba) end
call('HSET', k, 'rd', 0, 'rl', n, 'fd', 0, 'en', 0)
if b[1] ~= 'paused' then call('HSET', k, 'st', 'running') end
return {'ok', n}`
)
