package redisq

// The three scripts of every job's way, written out: each function, table and
// call of a command that they can do without makes them cheaper. What is rare
// they leave to the functions of the prelude: `rest('name', …)` calls one and
// writes back what it changed; records that the script itself changes are
// written before it.
// `CLOCK` sets ms, the server's time, and t, the same in seconds and
// microseconds as Redis tells it. `ACCEPT` writes a submit's event and gives its
// time, which stands in the id that Redis chooses: a call less, and as an event's
// it never goes back. Lines that end in "-- limited" stand there only if running
// jobs are limited.
const (
	// ARGV: id req fixed [key [quotas(text "cost key\n", "*" before it if live) {key cost limit life}…]]
	// returns 1, or {0|1 if this call was the first, id, status code}, or {"limit"|"full"|"quota"|"poison"|"pools", detail}
	submitLua = `
local id, m, key, quotas = ARGV[1], ARGV[3], ARGV[4] or '', ARGV[5] or ''
local first = id
if key ~= '' then first = call('GET', P .. 'i:' .. key) or id end
local @lined = struct.unpack('@lined.f', m)
local j, uk = P .. 'j:' .. first, P .. 'u:' .. us
local v = call('MGET', P .. 'k', uk, j)
if v[3] then
  local @state, pos = struct.unpack('@state.f', v[3])
  return {string.sub(v[3], pos) == m and 1 or 0, first, st}
end
if first ~= id then return {0, first, 4} end
local k, u = v[1] or @head.z .. @total.z, v[2] or @user.z
local @head, more = struct.unpack('@head.f', k)
local qd = struct.unpack('<d', u)
if poison > 0 then
  local @fixed = struct.unpack('@fixed.f', m)
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
local l = P .. 'l:' .. cl .. ':' .. po .. ':' .. us
local fresh = call('RPUSH', l, id) == 1
k = string.sub(k, more)
if fresh then
  local @total = struct.unpack('@total.f', k)
  if not string.find(pools, '\n' .. po .. '\n', 1, true) then
    pools = pools .. po .. '\n'
    local _, n = string.gsub(pools, '\n', '')
    if n > 257 then
      call('LPOP', l)
      return {'pools', ''}
    end
    k = struct.pack('@total.f', @total.w)
  end
end
for i = 6, #ARGV, 4 do
  local k = P .. 'n:quota/' .. ARGV[i]
  local new = call('EXISTS', k) == 0
  call('INCRBY', k, ARGV[i+1])
  if new and tonumber(ARGV[i+3]) > 0 then call('PEXPIRE', k, ARGV[i+3]) end
end
seq = seq + 1
local ev, came = 0
if ba == '' then
  qd, waiting, ev = qd + 1, waiting + 1, 1
  call('RPUSH', P .. 'x:' .. us, id)
  came = ACCEPT
else
  CLOCK
  came = ms
  call('RPUSH', P .. 'xb:' .. ba, id)
end
if cl == 'bulk' then inb = inb + 1 else ini = ini + 1 end
u = struct.pack('<d', qd) .. string.sub(u, 9)
if fresh then
  -- as enter and lineAdd in the prelude
  local @total = struct.unpack('@total.f', k)
  local @user = struct.unpack('@user.f', u)
  local vt, va, lines, fl = vti, vai, lni, fli
  if cl == 'bulk' then vt, va, lines, fl = vtb, vab, lnb, flb end
  if vt < 0 or lines <= 0 then
    if vt < fl then vt = fl + seq % 1000000
    elseif C.halflife > 0 then vt = fl + math.floor((vt - fl) * 2 ^ (-math.max(came - va, 0) / C.halflife)) end
    va = came
  end
  if cl == 'bulk' then vtb, vab, lnb = vt, va, lines + 1 else vti, vai, lni = vt, va, lines + 1 end
  u = struct.pack('@user.f', @user.w)
  local out = pz == 1 or (C.running > 0 and rn >= C.running)
  call('ZADD', (out and P .. 'vp:' or P .. 'v:') .. cl .. ':' .. po, string.format('%d', vt), us)
  call('ZADD', P .. 'wt:' .. cl, string.format('%d', came), po .. ':' .. us)
  call('ZADD', P .. 'w:' .. po, '0', '1')
end
local s = @grown.z
if quotas ~= '' then s = string.sub(s, 1, -3) .. struct.pack('<Hc0', #quotas, quotas) end
call('MSET', P .. 'k', struct.pack('@head.f', @head.w) .. k, uk, u, j, struct.pack('@born.f', 1, 0, 0, 0, seq, came, came, ev) .. s .. m, P .. 'jr:' .. id, ARGV[2])
if key ~= '' then call('SET', P .. 'i:' .. key, id, 'PX', 'C.keylife') end
return 1`

	// ARGV: lease worker+"\n"+name flags register-info(""=no) pool ("\n" around each)…
	// flags: i or b if only that class, else a; s if it holds no slot of its own; w if woken by the marker
	// returns false; or "again" (a line was mended); or of a first attempt the id, a line break, the
	// state and the request in one text; or of a later one {id, job, request, values of rareFields …}
	leaseLua = `
local mine, wk = ARGV[1], ARGV[2]
local had = call('HGET', P .. 'leases', mine)
if had then
  local @lease, pos = struct.unpack('@lease.f', had)
  local id = string.sub(had, pos)
  local v = call('MGET', P .. 'j:' .. id, P .. 'jr:' .. id)
  return {id, v[1], v[2], unpack(call('HMGET', P .. 'jh:' .. id, FIELDS))}
end
CLOCK
local @head, @total = struct.unpack('@head.f@total.f', call('GET', P .. 'k') or @head.z .. @total.z)
if ARGV[4] ~= '' or sw > 0 then
  local name = string.match(wk, '\n(.*)$')
  if ARGV[4] ~= '' then
    call('HSET', P .. 'workers', name, ARGV[4])
    call('ZADD', P .. 'seen', string.format('%d', ms), name)
  end
  if sw > 0 and (call('HEXISTS', P .. 'sw', 'queue:') == 1 or call('HEXISTS', P .. 'sw', 'worker:' .. name) == 1) then return false end
end
local only, beside, woken = string.byte(ARGV[3], 1, 3)
leases = leases + 1
local turned = false
if only == 97 and inb > 0 and leases % C.bulkevery == 0 then
  local old = call('ZRANGE', P .. 'wt:bulk', '0', '0', 'WITHSCORES')
  if old[2] and ms - old[2] > C.bulkafter then
    old = rest('oldest', 'bulk')
    turned = old ~= nil and ms - old > C.bulkafter
  end
end
local cl, po, us
for n = 1, 2 do
  if only == 97 then cl = (n == 2) == turned and 'interactive' or 'bulk'
  else cl = only == 98 and 'bulk' or 'interactive' end
  if not (sw > 0 and call('HEXISTS', P .. 'sw', 'class:' .. cl) == 1) then
    for p = 5, #ARGV do
      if string.find(pools, ARGV[p], 1, true) then
        local pool = string.sub(ARGV[p], 2, -2)
        local who = call('ZRANGE', P .. 'v:' .. cl .. ':' .. pool, '0', '0')[1]
        if who and (not us or rest('earlier', cl, who, pool, us, po)) then po, us = pool, who end
      end
    end
  end
  if us or only ~= 97 then break end
end
if not us then return false end
-- the head of the line
local line, uk, bulk = P .. 'l:' .. cl .. ':' .. po .. ':' .. us, P .. 'u:' .. us, cl == 'bulk'
local id = call('LPOP', line)
local more = call('LLEN', line) > 0
local k = P .. 'j:' .. (id or '')
local v = call('MGET', k, P .. 'jr:' .. (id or ''), uk)
if not v[1] then
  rest('mend', cl, po, us, id and 1 or 0)
  return 'again'
end
local @state, pos = struct.unpack('@state.f', v[1])
local @rest = struct.unpack('@rest.f', v[1], pos + 3 + #cl + #po + #us)
local est, known, last = call('HGET', P .. 'est', so), 0, 0
if est then est, known, last = struct.unpack('<ddd', est) else est = string.sub(po, -6) == '/views' and C.estviews or C.estmesh end
local @user = struct.unpack('@user.f', v[3] or @user.z)
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
    local from, to = string.find(pools, '\n' .. po .. '\n', 1, true)
    if from then pools = string.sub(pools, 1, from) .. string.sub(pools, to + 1) end
  end
end
if lines > (more and 1 or 0) then
  for p in string.gmatch(pools, '[^\n]+') do
    if p ~= po then call('ZADD', P .. 'v:' .. cl .. ':' .. p, 'XX', score, us) end
  end
end
if bulk then vtb, vab, lnb = vt, ms, lines else vti, vai, lni = vt, ms, lines end
at = at + 1
if ba == '' then
  qd, waiting, ev = qd - 1, waiting - 1, ev + 1
  call('XADD', P .. 'ev', '*', 'e', 'started\n' .. id .. '\n' .. at .. '\n' .. mine .. '\n' .. ev .. '\n' .. t[1] .. ' ' .. t[2] .. '\n' .. tail .. '\n')
end
-- run times are sampled once a second
st, as, sm, sa, du, es, ch, li, wo = 3, 0, (known < 10 or ms - last >= 1000) and 1 or 0, ms, ms + C.lease, est, est, mine, wk
local s = struct.pack('@state.f', @state.w)
call('HSET', P .. 'leases', mine, struct.pack('@lease.f', bulk and 1 or 0, du, beside == 115 and 0 or ms + est * 1000) .. id)
call('MSET', P .. 'k', struct.pack('@head.f@total.f', @head.w, @total.w), uk, struct.pack('@user.f', @user.w), k, s .. string.sub(v[1], pos))
rest('reseat', us) -- limited
if woken == 119 then -- the marker may have been another pool's than the job
  for p = 5, #ARGV do
    if string.find(pools, ARGV[p], 1, true) then call('ZADD', P .. 'w:' .. string.sub(ARGV[p], 2, -2), '0', '1') end
  end
end
if at == 1 then return id .. '\n' .. s .. v[2] end
call('HDEL', P .. 'jh:' .. id, 'pg')
return {id, s, v[2], unpack(call('HMGET', P .. 'jh:' .. id, FIELDS))}`

	// ARGV: id lease result eventdata used; returns 1 or {why}
	completeLua = `
local id, mine = ARGV[1], ARGV[2]
local j = P .. 'j:' .. id
local v = call('GET', j)
local @state, pos = struct.unpack('@state.f', v or @state.z)
if st ~= 3 or li ~= mine then
  if st == 4 and li == mine then return 1 end
  local why = st == 6 and li == mine and 'cancelled' or 'lost'
  call('HINCRBY', P .. 'c', 'refused_' .. why, '1')
  return {why}
end
CLOCK
local @who = struct.unpack('@who.f', v, pos)
local uk, used, asked = P .. 'u:' .. us, tonumber(ARGV[5]), as == 1
local n = call('MGET', P .. 'k', uk)
local k = n[1] or @head.z .. @total.z
local @user = struct.unpack('@user.f', n[2] or @user.z)
if used <= 0 then used = (ms - sa) / 1000 end
-- the charge is settled
if used ~= ch then
  local vt, lines = vti, lni
  if cl == 'bulk' then vt, lines = vtb, lnb end
  vt = vt + math.floor((used - ch) * 1e9 / (w > 0 and w or 1) + 0.5)
  if lines > 0 then
    local z, score = ((pz == 1 or (C.running > 0 and rn >= C.running)) and P .. 'vp:' or P .. 'v:') .. cl .. ':', string.format('%d', vt)
    if lines > 1 or call('ZADD', z .. po, 'XX', 'CH', score, us) == 0 then
      local @head, @total = struct.unpack('@head.f@total.f', k)
      for p in string.gmatch(pools, '[^\n]+') do call('ZADD', z .. p, 'XX', score, us) end
    end
  end
  if cl == 'bulk' then vtb, vab = vt, ms else vti, vai = vt, ms end
end
rn = rn - 1
call('HDEL', P .. 'leases', mine)
if ba == '' then
  ev = ev + 1
  call('XADD', P .. 'ev', '*', 'e', 'done\n' .. id .. '\n' .. at .. '\n' .. mine .. '\n' .. ev .. '\n' .. t[1] .. ' ' .. t[2] .. '\n' .. tail .. '\n' .. ARGV[4])
end
if qt ~= '' then qt = rest('refund', qt, false) end
st, as, ch, ud, en = 4, 0, 0, ud + used, ms
call('ZADD', P .. 't:done', t[1] .. '000', id)
call('MSET', P .. 'k', struct.pack('<d', struct.unpack('<d', k) + 1) .. string.sub(k, 9), uk, struct.pack('@user.f', @user.w),
  j, struct.pack('@state.f', @state.w) .. string.sub(v, pos), P .. 'je:' .. id, ARGV[3])
if rn <= 0 and qd <= 0 and pz == 0 and w == 0 then call('EXPIRE', uk, '7776000') end -- as flush
if asked then call('ZREM', P .. 'asked', id) end
rest('reseat', us) -- limited
if sm == 1 then rest('sample', so, ud) end
if ba ~= '' then
  local @fixed = struct.unpack('@fixed.f', v, pos)
  rest('batchEnd', {id=id, ba=ba, ln=ln}, 'done', '')
end
return 1`
)
