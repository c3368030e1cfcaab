package redisq

// The three scripts of every job's way, written out: each function, table and
// call of a command that they can do without makes them cheaper. What is rare
// they leave to the functions of the prelude: `rest('name', …)` calls one and
// writes back what it changed; records that the script itself changes are
// written before it.
// `CLOCK` sets ms and ts, the server's time as number and text; lines that end
// in "-- limited" stand there only if running jobs are limited.
const (
	// ARGV: id req fixed key quotas(text "cost key\n", "*" before it if live) {key cost limit life}…
	// returns {new 0|1, id, status code} or {"limit"|"full"|"quota"|"poison"|"pools", detail}
	submitLua = `
local id, m, key, quotas = ARGV[1], ARGV[3], ARGV[4], ARGV[5]
local first = id
if key ~= '' then first = call('GET', P .. 'i:' .. key) or id end
local known = call('HGET', P .. 'j:' .. first, 's')
if known then
  local mine = struct.unpack('<Bc0', m) == struct.unpack('<Bc0', call('HGET', P .. 'j:' .. first, 'm'))
  return {mine and 1 or 0, first, string.byte(known)}
end
if first ~= id then return {0, first, 4} end
local @fixed = struct.unpack('@fixed.f', m)
local uk, line = P .. 'u:' .. us, P .. 'l:' .. cl .. ':' .. po .. ':' .. us
local n = call('MGET', P .. 'k', uk)
local @total = @total.0
if n[1] then @total = struct.unpack('@total.f', n[1]) end
local @user = @user.0
if n[2] then @user = struct.unpack('@user.f', n[2]) end
if poison > 0 then
  local by = call('HGET', P .. 'poison', fp)
  if by then return {'poison', by} end
end
if ba == '' then
  if C.queueduser > 0 and qd >= C.queueduser then return {'limit', ''} end
  if C.queuedall > 0 and waiting >= C.queuedall then return {'full', ''} end
end
for i = 6, #ARGV, 4 do
  if tonumber(call('GET', P .. 'n:quota/' .. ARGV[i]) or 0) + tonumber(ARGV[i+1]) > tonumber(ARGV[i+2]) then return {'quota', (i - 6) / 4} end
end
local fresh = call('RPUSH', line, id) == 1
if fresh and call('SADD', P .. 'pools', po) == 1 and call('SCARD', P .. 'pools') > 256 then
  call('SREM', P .. 'pools', po)
  call('LPOP', line)
  return {'pools', ''}
end
for i = 6, #ARGV, 4 do
  local k = P .. 'n:quota/' .. ARGV[i]
  local new = call('EXISTS', k) == 0
  call('INCRBY', k, ARGV[i+1])
  if new and tonumber(ARGV[i+3]) > 0 then call('PEXPIRE', k, ARGV[i+3]) end
end
CLOCK
seq = seq + 1
if ba == '' then
  qd, waiting = qd + 1, waiting + 1
  call('RPUSH', P .. 'x:' .. us, id)
  call('XADD', P .. 'ev', '*', 'e', 'accepted\n' .. id .. '\n0\n\n1\n' .. ts .. '\n' .. string.sub(m, pos) .. '\n{"stage":"queued"}')
else call('RPUSH', P .. 'xb:' .. ba, id) end
call('HSET', P .. 'j:' .. id, 's', struct.pack('@state.f', 1, 0, 0, 0, seq, ms, ms, 0, 0, 0, 0, 0, 0, ba == '' and 1 or 0, 0, 0, '', #quotas, quotas), 'm', m, 'r', ARGV[2])
if key ~= '' then call('SET', P .. 'i:' .. key, id, 'PX', 'C.keylife') end
if cl == 'bulk' then inb = inb + 1 else ini = ini + 1 end
if fresh then
  -- as enter and lineAdd in the prelude
  local vt, va, lines, fl = vti, vai, lni, fli
  if cl == 'bulk' then vt, va, lines, fl = vtb, vab, lnb, flb end
  if vt < 0 or lines <= 0 then
    if vt < fl then vt = fl + seq % 1000000
    elseif C.halflife > 0 then vt = fl + math.floor((vt - fl) * 2 ^ (-(ms - va) / C.halflife)) end
    va = ms
  end
  if cl == 'bulk' then vtb, vab, lnb = vt, va, lines + 1 else vti, vai, lni = vt, va, lines + 1 end
  local out = pz == 1 or (C.running > 0 and rn >= C.running)
  call('ZADD', (out and P .. 'vp:' or P .. 'v:') .. cl .. ':' .. po, string.format('%d', vt), us)
  call('ZADD', P .. 'wt:' .. cl, ts, po .. ':' .. us)
  call('ZADD', P .. 'w:' .. po, '0', '1')
end
call('MSET', P .. 'k', struct.pack('@total.f', @total.w), uk, struct.pack('@user.f', @user.w))
return {1, id, 1}`

	// ARGV: lease worker name beside(1|"") register-info(""=no) woken(1|"": by the marker) class|"" class|"" pool…
	// returns false, {"again"} (a line was mended), or {id, s, r, then of a later attempt fields of leaseFields}
	leaseLua = `
local mine, name = ARGV[1], ARGV[3]
local had = call('HGET', P .. 'leases', mine)
if had then
  local @lease = struct.unpack('@lease.f', had)
  local id = string.sub(had, pos)
  return {id, unpack(call('HMGET', P .. 'j:' .. id, FIELDS))}
end
CLOCK
if ARGV[5] ~= '' then
  call('HSET', P .. 'workers', name, ARGV[5])
  call('ZADD', P .. 'seen', ts, name)
end
local @total = @total.0
local n = call('GET', P .. 'k')
if n then @total = struct.unpack('@total.f', n) end
if sw > 0 and (call('HEXISTS', P .. 'sw', 'queue:') == 1 or call('HEXISTS', P .. 'sw', 'worker:' .. name) == 1) then return false end
leases = leases + 1
local turned = false
if ARGV[7] ~= '' and ARGV[8] ~= '' and leases % C.bulkevery == 0 then
  local old = call('ZRANGE', P .. 'wt:bulk', '0', '0', 'WITHSCORES')
  turned = old[2] and ms - old[2] > C.bulkafter
  if turned then
    old = rest('oldest', 'bulk')
    turned = old and ms - old > C.bulkafter
  end
end
local cl, po, us
for n = 7, 8 do
  cl = ARGV[turned and 15 - n or n]
  if cl ~= '' and not (sw > 0 and call('HEXISTS', P .. 'sw', 'class:' .. cl) == 1) then
    for p = 9, #ARGV do
      local who = call('ZRANGE', P .. 'v:' .. cl .. ':' .. ARGV[p], '0', '0')[1]
      if who and (not us or rest('earlier', cl, who, ARGV[p], us, po)) then po, us = ARGV[p], who end
    end
    if us then break end
  end
end
if not us then return false end
-- the head of the line
local line, uk, bulk = P .. 'l:' .. cl .. ':' .. po .. ':' .. us, P .. 'u:' .. us, cl == 'bulk'
local id = call('LPOP', line)
local more = call('LLEN', line) > 0
local k, v = P .. 'j:' .. (id or ''), {}
if id then v = call('HMGET', k, 's', 'r', 'm') end
if not v[1] then
  rest('mend', cl, po, us, id and 1 or 0)
  return {'again'}
end
local @state = struct.unpack('@state.f', v[1])
local @fixed = struct.unpack('@fixed.f', v[3])
local est, known = call('HGET', P .. 'est', so), 0
if est then est, known = struct.unpack('<dd', est) else est = string.sub(po, -6) == '/views' and C.estviews or C.estmesh end
local @user = @user.0
local u = call('GET', uk)
if u then @user = struct.unpack('@user.f', u) end
-- the estimate is charged
local vt, lines = vti, lni
if bulk then
  vt, lines, inb = vtb, lnb, inb - 1
  if vt > flb then flb = vt end
else
  ini = ini - 1
  if vt > fli then fli = vt end
end
if vt < 0 then vt = 0 end
vt, rn = vt + math.floor(est * 1e9 / (w > 0 and w or 1) + 0.5), rn + 1
local score = string.format('%d', vt)
if more then call('ZADD', P .. 'v:' .. cl .. ':' .. po, score, us)
else
  lines = lines - 1
  call('ZREM', P .. 'v:' .. cl .. ':' .. po, us)
  call('ZREM', P .. 'wt:' .. cl, po .. ':' .. us)
  if call('EXISTS', P .. 'v:interactive:' .. po, P .. 'vp:interactive:' .. po, P .. 'v:bulk:' .. po, P .. 'vp:bulk:' .. po) == 0 then
    call('SREM', P .. 'pools', po)
  end
end
if lines > (more and 1 or 0) then
  for _, p in ipairs(call('SMEMBERS', P .. 'pools')) do
    if p ~= po then call('ZADD', P .. 'v:' .. cl .. ':' .. p, 'XX', score, us) end
  end
end
if bulk then vtb, vab, lnb = vt, ms, lines else vti, vai, lni = vt, ms, lines end
at = at + 1
if ba == '' then
  qd, waiting, ev = qd - 1, waiting - 1, ev + 1
  call('XADD', P .. 'ev', '*', 'e', 'started\n' .. id .. '\n' .. at .. '\n' .. mine .. '\n' .. ev .. '\n' .. ts .. '\n' .. string.sub(v[3], pos) .. '\n')
end
st, as, sm, sa, du, es, ch, li = 3, 0, (known < 10 or leases % 5 == 0) and 1 or 0, ms, ms + C.lease, est, est, mine
local s = struct.pack('@state.f', @state.w)
if at == 1 then
  call('HSET', k, 's', s, 'w', ARGV[2] .. '\n' .. name)
  v = {s, v[2]}
else
  call('HSET', k, 's', s, 'w', ARGV[2] .. '\n' .. name, 'pg', '')
  v = call('HMGET', k, FIELDS)
end
call('HSET', P .. 'leases', mine, struct.pack('@lease.f', bulk and 1 or 0, du, ARGV[4] == '' and ms + est * 1000 or 0) .. id)
call('MSET', P .. 'k', struct.pack('@total.f', @total.w), uk, struct.pack('@user.f', @user.w))
rest('reseat', us) -- limited
if ARGV[6] ~= '' and (more or call('EXISTS', P .. 'v:interactive:' .. po, P .. 'v:bulk:' .. po) > 0) then call('ZADD', P .. 'w:' .. po, '0', '1') end
return {id, unpack(v)}`

	// ARGV: id lease result eventdata used; returns {"ok"} or {why}
	completeLua = `
local id, mine = ARGV[1], ARGV[2]
local k = P .. 'j:' .. id
local v = call('HMGET', k, 's', 'm')
local @state = @state.0
if v[1] then @state = struct.unpack('@state.f', v[1]) end
if st ~= 3 or li ~= mine then
  if st == 4 and li == mine then return {'ok'} end
  local why = st == 6 and li == mine and 'cancelled' or 'lost'
  call('HINCRBY', P .. 'c', 'refused_' .. why, '1')
  return {why}
end
CLOCK
local @fixed = struct.unpack('@fixed.f', v[2])
local uk, used, asked = P .. 'u:' .. us, tonumber(ARGV[5]), as == 1
local n = call('MGET', P .. 'k', uk)
local @total = @total.0
if n[1] then @total = struct.unpack('@total.f', n[1]) end
local @user = @user.0
if n[2] then @user = struct.unpack('@user.f', n[2]) end
if used <= 0 then used = (ms - sa) / 1000 end
-- the charge is settled
if used ~= ch then
  local vt, lines = vti, lni
  if cl == 'bulk' then vt, lines = vtb, lnb end
  vt = vt + math.floor((used - ch) * 1e9 / (w > 0 and w or 1) + 0.5)
  if lines > 0 then
    local z, score = ((pz == 1 or (C.running > 0 and rn >= C.running)) and P .. 'vp:' or P .. 'v:') .. cl .. ':', string.format('%d', vt)
    if lines > 1 or call('ZADD', z .. po, 'XX', 'CH', score, us) == 0 then
      for _, p in ipairs(call('SMEMBERS', P .. 'pools')) do call('ZADD', z .. p, 'XX', score, us) end
    end
  end
  if cl == 'bulk' then vtb, vab = vt, ms else vti, vai = vt, ms end
end
rn, done = rn - 1, done + 1
call('HDEL', P .. 'leases', mine)
if ba == '' then
  ev = ev + 1
  call('XADD', P .. 'ev', '*', 'e', 'done\n' .. id .. '\n' .. at .. '\n' .. mine .. '\n' .. ev .. '\n' .. ts .. '\n' .. string.sub(v[2], pos) .. '\n' .. ARGV[4])
end
if qt ~= '' then qt = rest('refund', qt, false) end
st, as, ch, ud, en = 4, 0, 0, ud + used, ms
call('HSET', k, 's', struct.pack('@state.f', @state.w), 're', ARGV[3])
call('ZADD', P .. 't:done', ts, id)
if rn <= 0 and qd <= 0 and pz == 0 and w == 0 then -- as flush
  call('SET', P .. 'k', struct.pack('@total.f', @total.w))
  call('SET', uk, struct.pack('@user.f', @user.w), 'EX', '7776000')
else call('MSET', P .. 'k', struct.pack('@total.f', @total.w), uk, struct.pack('@user.f', @user.w)) end
if asked then call('ZREM', P .. 'asked', id) end
rest('reseat', us) -- limited
if sm == 1 then rest('sample', so, ud) end
if ba ~= '' then rest('batchEnd', {id=id, ba=ba, ln=ln}, 'done', '') end
return {'ok'}`
)
