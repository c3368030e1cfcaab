package redisq

// The three scripts of every job's way, written out: the functions of the
// prelude cost them twice the time, for each table and closure is made anew at
// each call. What is rare (limits on running jobs, ends of batches) they leave
// to the prelude. `CLOCK` sets ms and ts, the server's time as number and text;
// lines that end in "-- limited" stand there only if running jobs are limited.
const (
	// ARGV: id req head tail class pool batch line user nonce key quotas(text "cost key\n", "*" before it if live) nq {key cost limit life}…
	// returns {new 0|1, id, status} or {"limit"|"full"|"quota"|"poison"|"pools", detail}
	submitLua = `
local id, cl, po, ba, us, key, quotas = ARGV[1], ARGV[5], ARGV[6], ARGV[7], ARGV[9], ARGV[11], ARGV[12]
local first = id
if key ~= '' then first = call('GET', P .. 'i:' .. key) or id end
local v = call('HMGET', P .. 'j:' .. first, 'st', 'sn')
if v[1] then return {v[2] == ARGV[10] and 1 or 0, first, v[1]} end
if first ~= id then return {0, first, 'done'} end
if call('EXISTS', P .. 'poison') == 1 then
  local by = call('HGET', P .. 'poison', string.match(ARGV[4], '[^\n]*$'))
  if by then return {'poison', by} end
end
local c = call('HMGET', P .. 'c', 'seq', 'waiting', 'floor:' .. cl)
local uk, line = P .. 'u:' .. us, P .. 'l:' .. cl .. ':' .. po .. ':' .. us
local u = call('HMGET', uk, 'qd', 'rn', 'pz', 'ln:' .. cl, 'vt:' .. cl, 'va:' .. cl)
local qd, rn, lines, waiting = tonumber(u[1] or 0), tonumber(u[2] or 0), tonumber(u[4] or 0), tonumber(c[2] or 0)
if ba == '' then
  if C.queueduser > 0 and qd >= C.queueduser then return {'limit', ''} end
  if C.queuedall > 0 and waiting >= C.queuedall then return {'full', ''} end
end
local fresh = call('EXISTS', line) == 0
if fresh and call('SADD', P .. 'pools', po) == 1 and call('SCARD', P .. 'pools') > 256 then
  call('SREM', P .. 'pools', po)
  return {'pools', ''}
end
if quotas ~= '' then
  for i = 14, 10 + 4 * tonumber(ARGV[13]), 4 do
    if tonumber(call('GET', P .. 'n:quota/' .. ARGV[i]) or 0) + tonumber(ARGV[i+1]) > tonumber(ARGV[i+2]) then return {'quota', tostring((i - 14) / 4)} end
  end
  for i = 14, 10 + 4 * tonumber(ARGV[13]), 4 do
    local k = P .. 'n:quota/' .. ARGV[i]
    local new = call('EXISTS', k) == 0
    call('INCRBY', k, ARGV[i+1])
    if new and tonumber(ARGV[i+3]) > 0 then call('PEXPIRE', k, ARGV[i+3]) end
  end
end
CLOCK
local sq = string.format('%d', (c[1] or 0) + 1)
call('HSET', P .. 'j:' .. id, 'r', ARGV[2], 'm', ARGV[3] .. ARGV[4], 'st', 'queued', 'sq', sq, 'sb', ts, 'sn', ARGV[10], 'ev', ba == '' and '1' or '0', 'qt', quotas)
call('ZADD', ba == '' and P .. 'x:' .. us or P .. 'xb:' .. ba, sq, id)
call('ZADD', P .. 'rev', '0', string.reverse(id))
if key ~= '' then call('SET', P .. 'i:' .. key, id, 'PX', C.keylife) end
call('ZADD', line, sq, id)
call('ZADD', P .. 'wt:' .. cl, ts, id)
if qd == 0 and rn == 0 then call('PERSIST', uk) end
if ba == '' then qd, waiting = qd + 1, waiting + 1 end
if fresh then
  -- enter, as in the prelude
  local vt, fl = tonumber(u[5] or ''), tonumber(c[3] or 0)
  if not vt or lines <= 0 then
    if not vt or vt < fl then vt = fl + sq % 1000000 * 1e-9
    elseif C.halflife > 0 then vt = fl + (vt - fl) * 2 ^ (-(ms - tonumber(u[6] or 0)) / C.halflife) end
    call('HSET', uk, 'vt:' .. cl, vt, 'va:' .. cl, ts)
  end
  local out = u[3] == '1' or (C.running > 0 and rn >= C.running)
  call('ZADD', (out and P .. 'vp:' or P .. 'v:') .. cl .. ':' .. po, vt, us)
  call('HSET', uk, 'qd', qd, 'ln:' .. cl, lines + 1)
else
  call('HSET', uk, 'qd', qd)
end
call('ZADD', P .. 'w:' .. po, '0', '1')
call('HSET', P .. 'c', 'seq', sq, 'waiting', waiting)
if ba == '' then call('XADD', P .. 'ev', '*', 'e', 'accepted\n' .. id .. '\n0\n\n1\n' .. ts .. '\n' .. ARGV[4], 'd', '{"stage":"queued"}') end
return {1, id, 'queued'}`

	// ARGV: lease worker name beside register-info(""=no) nclasses class… pool…
	// returns false, {id, {value of a field of leaseFields …}}, or {"repair", class, pool, user, id}
	leaseLua = `
local li, name, nc = ARGV[1], ARGV[3], tonumber(ARGV[6])
local had = call('HGET', P .. 'lids', li)
if had then return {had, call('HMGET', P .. 'j:' .. had, FIELDS)} end
CLOCK
if ARGV[5] ~= '' then
  call('HSET', P .. 'workers', name, ARGV[5])
  call('ZADD', P .. 'seen', ts, name)
end
local sw = call('EXISTS', P .. 'sw') == 1
if sw and (call('HEXISTS', P .. 'sw', 'queue:') == 1 or call('HEXISTS', P .. 'sw', 'worker:' .. name) == 1) then return false end
local c = call('HMGET', P .. 'c', 'leases', 'waiting', 'floor:interactive', 'floor:bulk')
local leases = tonumber(c[1] or 0) + 1
local turned = false
if nc == 2 and leases % C.bulkevery == 0 then
  local old = call('ZRANGE', P .. 'wt:bulk', '0', '0', 'WITHSCORES')
  turned = old[2] and ms - tonumber(old[2]) > C.bulkafter
end
for n = 1, nc do
  local cl = ARGV[6 + (turned and nc + 1 - n or n)]
  local id, po, us, vt, sq, more, others
  if not sw or call('HEXISTS', P .. 'sw', 'class:' .. cl) == 0 then
    for p = 7 + nc, #ARGV do
      local who = call('ZRANGE', P .. 'v:' .. cl .. ':' .. ARGV[p], '0', '1', 'WITHSCORES')
      for i = 1, #who, 2 do
        local x = tonumber(who[i+1])
        if id and x > vt then break end
        local head = call('ZRANGE', P .. 'l:' .. cl .. ':' .. ARGV[p] .. ':' .. who[i], '0', '1', 'WITHSCORES')
        local s = tonumber(head[2] or 0)
        if head[1] and (not id or x < vt or s < sq) then
          id, po, us, vt, sq, more, others = head[1], ARGV[p], who[i], x, s, head[3], who[3]
        end
      end
    end
  end
  if id then
    local k, uk = P .. 'j:' .. id, P .. 'u:' .. us
    local v = call('HMGET', k, FIELDS)
    if not v[1] then return {'repair', cl, po, us, id} end
    local so, ba, tail = string.match(v[2], '^[^\n]*\n[^\n]*\n([^\n]*)\n([^\n]*)\n[^\n]*\n(.*)$')
    local est = tonumber(call('HGET', P .. 'est', so) or '') or (string.sub(po, -6) == '/views' and C.estviews or C.estmesh)
    local u = call('HMGET', uk, 'w', 'qd', 'rn', 'vt:' .. cl, 'ln:' .. cl)
    local qd, rn, lines, waiting = tonumber(u[2] or 0), tonumber(u[3] or 0) + 1, tonumber(u[5] or 0), tonumber(c[2] or 0)
    -- out of the line; the estimate is charged
    call('ZREM', P .. 'l:' .. cl .. ':' .. po .. ':' .. us, id)
    call('ZREM', P .. 'wt:' .. cl, id)
    local new = tonumber(u[4] or 0) + est / tonumber(u[1] or 1)
    if more then call('ZADD', P .. 'v:' .. cl .. ':' .. po, new, us)
    else
      call('ZREM', P .. 'v:' .. cl .. ':' .. po, us)
      lines = lines - 1
      if not others and call('EXISTS', P .. 'v:interactive:' .. po, P .. 'vp:interactive:' .. po, P .. 'v:bulk:' .. po, P .. 'vp:bulk:' .. po) == 0 then
        call('SREM', P .. 'pools', po)
      end
    end
    if lines > (more and 1 or 0) then
      for _, p in ipairs(call('SMEMBERS', P .. 'pools')) do
        if p ~= po then call('ZADD', P .. 'v:' .. cl .. ':' .. p, 'XX', new, us) end
      end
    end
    local dl, at, es, ev = string.format('%d', ms + C.lease), string.format('%d', (v[6] or 0) + 1), tostring(est), v[12]
    if ba == '' then
      qd, waiting, ev = qd - 1, waiting - 1, string.format('%d', (ev or 0) + 1)
      call('XADD', P .. 'ev', '*', 'e', 'started\n' .. id .. '\n' .. at .. '\n' .. li .. '\n' .. ev .. '\n' .. ts .. '\n' .. tail, 'd', '')
    end
    call('HSET', k, 'st', 'leased', 'li', li, 'wk', ARGV[2], 'wn', name, 'bs', ARGV[4], 'at', at, 'sa', ts, 'dl', dl, 'es', es, 'ch', es, 'pg', '', 'as', '', 'ev', ev)
    call('ZADD', P .. 'leases', dl, id)
    if ARGV[4] == '' then call('ZADD', P .. 'eta', string.format('%d', ms + est * 1000), id) end
    call('HSET', P .. 'lids', li, id)
    call('HSET', uk, 'qd', qd, 'rn', rn, 'vt:' .. cl, new, 'va:' .. cl, ts, 'ln:' .. cl, lines)
    local fl = tonumber(c[cl == 'bulk' and 4 or 3] or 0)
    call('HSET', P .. 'c', 'leases', leases, 'waiting', waiting, 'floor:' .. cl, vt > fl and vt or fl)
    reseat(us) -- limited
    if more or others or call('EXISTS', P .. 'v:interactive:' .. po, P .. 'v:bulk:' .. po) > 0 then call('ZADD', P .. 'w:' .. po, '0', '1') end
    v[1], v[5], v[6], v[7], v[23], v[24], v[25] = 'leased', ts, at, li, ARGV[2], es, dl
    return {id, v}
  end
end
return false`

	// ARGV: id lease result eventdata used; returns {"ok"} or {why}
	completeLua = `
local id, li = ARGV[1], ARGV[2]
local k = P .. 'j:' .. id
local v = call('HMGET', k, 'st', 'm', 'li', 'fi', 'ch', 'ud', 'ev', 'as', 'sa', 'sq', 'at', 'qt')
if v[1] ~= 'leased' or v[3] ~= li then
  if v[4] == li .. ':done:done' then return {'ok'} end
  local why = v[1] == 'cancelled' and v[3] == li and 'cancelled' or 'lost'
  call('HINCRBY', P .. 'c', 'refused_' .. why, '1')
  return {why}
end
CLOCK
local cl, po, so, ba, ln, tail, us = string.match(v[2], FIXED)
local uk, used, charged = P .. 'u:' .. us, tonumber(ARGV[5]), tonumber(v[5] or 0)
if used <= 0 then used = (ms - tonumber(v[9])) / 1000 end
local total = tonumber(v[6] or 0) + used
-- the charge is settled
local u = call('HMGET', uk, 'w', 'qd', 'rn', 'pz', 'vt:' .. cl, 'ln:' .. cl)
local rn, lines = tonumber(u[3] or 0) - 1, tonumber(u[6] or 0)
if used ~= charged then
  local vt = tonumber(u[5] or 0) + (used - charged) / tonumber(u[1] or 1)
  if lines > 0 then
    local z = ((u[4] == '1' or (C.running > 0 and rn + 1 >= C.running)) and P .. 'vp:' or P .. 'v:') .. cl .. ':'
    if lines > 1 or call('ZADD', z .. po, 'XX', 'CH', vt, us) == 0 then
      for _, p in ipairs(call('SMEMBERS', P .. 'pools')) do call('ZADD', z .. p, 'XX', vt, us) end
    end
  end
  call('HSET', uk, 'rn', rn, 'vt:' .. cl, vt, 'va:' .. cl, ts)
else
  call('HSET', uk, 'rn', rn)
end
call('ZREM', P .. 'leases', id)
call('ZREM', P .. 'eta', id)
call('HDEL', P .. 'lids', li)
if v[8] and v[8] ~= '' then call('ZREM', P .. 'asked', id) end
reseat(us) -- limited
if rn <= 0 and tonumber(u[2] or 0) <= 0 and u[4] ~= '1' and not u[1] then call('EXPIRE', uk, '7776000') end
-- a sample of how long such jobs take
local d = P .. 'd:' .. so
local n = call('LPUSH', d, total)
if n > 2 * C.samples then call('LTRIM', d, 0, C.samples - 1) end
if n <= 10 or tonumber(v[10]) % 5 == 0 then
  local s = call('LRANGE', d, 0, C.samples - 1)
  for i = 1, #s do s[i] = tonumber(s[i]) end
  table.sort(s)
  call('HSET', P .. 'est', so, s[math.min(math.floor(#s / 2) + 1, #s)])
end
local ev = v[7]
if ba == '' then
  ev = string.format('%d', (ev or 0) + 1)
  call('XADD', P .. 'ev', '*', 'e', 'done\n' .. id .. '\n' .. v[11] .. '\n' .. li .. '\n' .. ev .. '\n' .. ts .. '\n' .. tail, 'd', ARGV[4])
end
local quotas = {qt=v[12] or '', w={}}
if quotas.qt ~= '' then refund(quotas, false) end
call('HSET', k, 'st', 'done', 'qt', quotas.qt, 're', ARGV[3], 'fi', li .. ':done:done', 'fl', '', 'pg', '', 'ch', '0', 'ud', total, 'en', ts, 'ev', ev)
call('ZADD', P .. 't:done', ts, id)
call('HINCRBY', P .. 'c', 'done', '1')
if ba ~= '' then batchEnd({id=id, ba=ba, ln=ln}, 'done', '') end
return {'ok'}`

	// ARGV: class pool user id; takes an entry without its job out of a line
	repairLua = `
local cl, po, us, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if call('EXISTS', P .. 'j:' .. id) == 1 then return 0 end
lineRemove({id=id, cl=cl, po=po, us=us})
wake(po)
return 1`
)
