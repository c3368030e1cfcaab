package redisq

// prelude are the functions that all scripts share. The program puts in front
// of it: P (key prefix with the hash tag), C (numbers of the configuration),
// S (sentences). A test may define `shift` to move the clock.
//
// Keys, all under one hash tag so that Cluster keeps them in one slot:
//
//	j:<id>          hash    a job (fields in job.go)
//	l:<cl>:<po>:<u> zset    a user's line: job by sequence number
//	v:<cl>:<po>     zset    the order: users with a line, by virtual time
//	vp:<cl>:<po>    zset    the same for users who are held out (paused, at their running limit)
//	wt:<cl>         zset    all jobs in lines, by the time since which they wait
//	held            zset    queued jobs of paused batches
//	leases          zset    leased jobs by deadline
//	eta             zset    leased jobs that hold a slot, by expected end
//	lids            hash    lease id → job, while leased
//	later           zset    scheduled jobs by time
//	t:<status>      zset    terminal jobs by end; t:failed … are the dead letters
//	x:<user>        zset    jobs of a user (without batches) by sequence number
//	xb:<batch>      zset    jobs of a batch; tb:<batch>:<status> list of its kept terminal ones
//	rev             zset    job ids reversed, for endings
//	u:<user>        hash    w weight, qd queued, rn running, pz paused, vt:/va:/ln:<cl>
//	pools           set     pools that have lines
//	w:<po>          zset    wake marker of a pool
//	i:<key>         string  idempotency key → job
//	poison          hash    fingerprint → job
//	d:<sort>        list    recent run times; est hash: their median
//	c               hash    counters; floor:<class>, leases, seq in meta
//	sw              hash    switches; workers hash, seen zset: workers
//	ev, al          stream  outbox, alerts; cur hash: cursors; firing hash
//	b:<batch>       hash    batch; bd:/bf:/br: bitmaps done, failed, to run again; bw: hash reasons
//	batches         zset    batches by creation; bo:<owner> likewise
//	s:<key>         hash    record of State; sx zset: their keys
//	n:<key>         string  counter with a life; o:<token> answers given
//	lk:<name>       hash    lock
//	asked           zset    jobs asked to yield; schema: version of this layout
const prelude = `
local call = redis.call
local function K(...) return P .. table.concat({...}, ':') end
local T
local function now()
  if not T then
    local t = call('TIME')
    T = t[1] * 1000 + math.floor(t[2] / 1000) + (shift and shift() or 0)
  end
  return T
end
local F = {'st','cl','po','so','us','ba','ln','hd','sq','sa','at','fa','cr','di','cw','li','fi','wk','wn','bs','qt','fp','ch','ud','ev','as','yi','nb','fl','pg'}
local NUM = {ln=1,sq=1,sa=1,at=1,fa=1,cr=1,di=1,ch=1,ud=1,ev=1,yi=1,nb=1}
local function load(id)
  local v = call('HMGET', K('j', id), unpack(F))
  if not v[1] then return nil end
  local j = {id = id, k = K('j', id)}
  for i, f in ipairs(F) do
    if NUM[f] then j[f] = tonumber(v[i] or 0) or 0 else j[f] = v[i] or '' end
  end
  return j
end
local function count(name, n) call('HINCRBY', K('c'), name, n or 1) end
local function switched(scope, name) return call('HEXISTS', K('sw'), scope .. ':' .. (name or '')) == 1 end
local function floor(cl) return tonumber(call('HGET', K('meta'), 'floor:' .. cl) or 0) end

-- parked: the user is paused or at the limit of running jobs.
local function parked(u)
  local v = call('HMGET', K('u', u), 'pz', 'rn')
  return v[1] == '1' or (C.running > 0 and tonumber(v[2] or 0) >= C.running)
end
-- share sets a user's virtual time, in the order too.
local function share(u, cl, vt)
  local uk = K('u', u)
  call('HSET', uk, 'vt:' .. cl, vt, 'va:' .. cl, now())
  if tonumber(call('HGET', uk, 'ln:' .. cl) or 0) > 0 then
    for _, po in ipairs(call('SMEMBERS', K('pools'))) do
      call('ZADD', K('v', cl, po), 'XX', vt, u)
      call('ZADD', K('vp', cl, po), 'XX', vt, u)
    end
  end
end
-- enter gives the virtual time at which a user joins a class: the own one,
-- its debt above the floor decayed, and at least the floor.
local function enter(u, cl, force)
  local v = call('HMGET', K('u', u), 'vt:' .. cl, 'va:' .. cl, 'ln:' .. cl)
  local vt = tonumber(v[1] or '')
  if vt and not force and tonumber(v[3] or 0) > 0 then return vt end
  local fl = floor(cl)
  if not vt or vt < fl then vt = fl
  elseif C.halflife > 0 then vt = fl + (vt - fl) * 2 ^ (-(now() - tonumber(v[2])) / C.halflife) end
  share(u, cl, vt)
  return vt
end
local function charge(u, cl, sec)
  if sec == 0 then return end
  local v = call('HMGET', K('u', u), 'vt:' .. cl, 'w')
  share(u, cl, tonumber(v[1] or 0) + sec / tonumber(v[2] or 1))
end
local function wake(po) call('ZADD', K('w', po), 0, '1') end
local function lineAdd(j)
  local l = K('l', j.cl, j.po, j.us)
  call('ZADD', l, j.sq, j.id)
  call('ZADD', K('wt', j.cl), now(), j.id)
  if call('ZCARD', l) == 1 then
    call('SADD', K('pools'), j.po)
    local vt = enter(j.us, j.cl)
    call('ZADD', K(parked(j.us) and 'vp' or 'v', j.cl, j.po), vt, j.us)
    call('HINCRBY', K('u', j.us), 'ln:' .. j.cl, 1)
  end
  wake(j.po)
end
local function lineRemove(j)
  local l = K('l', j.cl, j.po, j.us)
  call('ZREM', l, j.id)
  call('ZREM', K('wt', j.cl), j.id)
  if call('EXISTS', l) == 0 then
    call('ZREM', K('v', j.cl, j.po), j.us)
    call('ZREM', K('vp', j.cl, j.po), j.us)
    call('HINCRBY', K('u', j.us), 'ln:' .. j.cl, -1)
    for _, cl in ipairs({'interactive', 'bulk'}) do
      if call('EXISTS', K('v', cl, j.po), K('vp', cl, j.po)) > 0 then return end
    end
    call('SREM', K('pools'), j.po)
  end
end
-- reseat moves a user's lines into or out of the order.
local function reseat(u)
  local out = parked(u)
  for _, cl in ipairs({'interactive', 'bulk'}) do
    local moved = false
    for _, po in ipairs(call('SMEMBERS', K('pools'))) do
      local from, to = K('v', cl, po), K('vp', cl, po)
      if not out then from, to = to, from end
      if call('ZSCORE', from, u) then
        moved = true
        call('ZREM', from, u)
        call('ZADD', to, 0, u)
        wake(po)
      end
    end
    if moved and not out then enter(u, cl, true) -- who comes back has no credit from absence
    elseif moved then share(u, cl, tonumber(call('HGET', K('u', u), 'vt:' .. cl) or 0)) end
  end
end
local function runs(u, n)
  call('HINCRBY', K('u', u), 'rn', n)
  if C.running > 0 then reseat(u) end
end
local function waits(j, n)
  if j.ba == '' then
    call('HINCRBY', K('u', j.us), 'qd', n)
    call('HINCRBY', K('meta'), 'queued', n)
  end
end
-- event appends to the outbox; jobs of batches write none.
local function event(j, kind, data)
  if j.ba ~= '' then return end
  j.ev = call('HINCRBY', j.k, 'ev', 1)
  local o = call('HMGET', j.k, 'or', 'pv')
  call('XADD', K('ev'), '*', 'k', kind, 'j', j.id, 'a', j.at, 'l', j.li, 'q', j.ev, 't', now(), 'u', j.us, 'p', o[2] or '', 'o', o[1] or '', 'd', data or '')
end
local function toLine(j)
  j.st = 'queued'
  call('HSET', j.k, 'st', 'queued')
  if j.ba ~= '' and call('HGET', K('b', j.ba), 'st') == 'paused' then
    call('HSET', j.k, 'hd', '1')
    call('ZADD', K('held'), j.sq, j.id)
  else
    lineAdd(j)
  end
  waits(j, 1)
end
local function fromLine(j)
  if j.hd == '1' then
    call('ZREM', K('held'), j.id)
    call('HDEL', j.k, 'hd')
    j.hd = ''
  else
    lineRemove(j)
  end
  waits(j, -1)
end
local function unlease(j, used)
  if used <= 0 then used = (now() - j.sa) / 1000 end
  charge(j.us, j.cl, used - j.ch)
  j.ud = j.ud + used
  call('ZREM', K('leases'), j.id)
  call('ZREM', K('eta'), j.id)
  call('HDEL', K('lids'), j.li)
  call('HSET', j.k, 'ch', 0, 'ud', j.ud)
  runs(j.us, -1)
  local v = call('HMGET', K('u', j.us), 'pz', 'w')
  if v[1] ~= '1' and not v[2] then call('EXPIRE', K('u', j.us), 7776000) end
end
local function refund(j)
  for cost, key in string.gmatch(j.qt, '(%d+) ([^\n]+)\n') do
    local k = K('n', 'quota/' .. key)
    if call('EXISTS', k) == 1 and call('DECRBY', k, cost) < 0 then call('SET', k, 0, 'KEEPTTL') end
  end
  call('HDEL', j.k, 'qt')
  j.qt = ''
end
-- drop deletes a terminal job and its index entries.
local function drop(id)
  local v = call('HMGET', K('j', id), 'st', 'us', 'ba')
  if not v[1] then return end
  call('ZREM', K('t', v[1]), id)
  call('ZREM', K('rev'), string.reverse(id))
  if v[3] and v[3] ~= '' then call('ZREM', K('xb', v[3]), id) else call('ZREM', K('x', v[2]), id) end
  call('DEL', K('j', id))
end
local function batchEvent(id, st)
  local b = call('HMGET', K('b', id), 'nm', 'dn', 'fd', 'cn', 'own', 'or', 'pv')
  call('HSET', K('b', id), 'st', st, 'en', now())
  call('HDEL', K('sw'), 'batch:' .. id)
  call('XADD', K('ev'), '*', 'k', 'batch', 'b', id, 't', now(), 'u', b[5], 'o', b[6], 'p', b[7],
    's', st, 'nm', b[1], 'dn', b[2], 'fd', b[3], 'cn', b[4])
end
local function batchCheck(id)
  local b = call('HMGET', K('b', id), 'st', 'cu', 'tot', 'rl', 'out')
  if (b[1] ~= 'running' and b[1] ~= 'paused') or tonumber(b[2]) < tonumber(b[3]) or tonumber(b[4]) > 0 or tonumber(b[5]) > 0 then return end
  batchEvent(id, 'ended')
end
local function batchEnd(j, st, reason)
  local k = K('b', j.ba)
  local f = st == 'done' and 'dn' or st == 'cancelled' and 'cn' or 'fd'
  call('HINCRBY', k, 'out', -1)
  call('HINCRBY', k, f, 1)
  if f == 'dn' then call('SETBIT', K('bd', j.ba), j.ln, 1) end
  if f == 'fd' then
    call('SETBIT', K('bf', j.ba), j.ln, 1)
    if call('HLEN', K('bw', j.ba)) < C.reasons then call('HSET', K('bw', j.ba), j.ln, reason) end
  end
  local tb = K('tb', j.ba, st)
  if call('RPUSH', tb, j.id) > C.keepbatch then
    local old = call('LPOP', tb)
    if old and old ~= j.id then drop(old) end
  end
  batchCheck(j.ba)
end
-- finish makes a job that has left its place terminal, with its one event.
-- fk: kind of the failure; data: JSON of the event's extra fields; reason: for batches.
local function finish(j, st, kind, data, fk, reason)
  j.st = st
  call('HSET', j.k, 'st', st, 'en', now())
  call('ZADD', K('t', st), now(), j.id)
  count(st)
  if j.qt ~= '' and ((st == 'failed' and fk ~= 'input') or st == 'quarantined' or (st == 'cancelled' and j.at == 0)) then refund(j) end
  if j.ba ~= '' then batchEnd(j, st, reason or '') else event(j, kind, data) end
end
local function cancel(j)
  if j.st == 'queued' then fromLine(j)
  elseif j.st == 'scheduled' then call('ZREM', K('later'), j.id); waits(j, -1)
  elseif j.st == 'leased' then unlease(j, 0) end
  finish(j, 'cancelled', 'cancelled')
end
local function later(j, ms)
  j.st = 'scheduled'
  call('HSET', j.k, 'st', 'scheduled', 'nb', now() + ms)
  call('ZADD', K('later'), now() + ms, j.id)
  waits(j, 1)
end
local function backoff(n, rnd)
  local d = C.base
  for i = 2, n do if d < C.max then d = d * 2 end end
  return math.floor(math.min(d, C.max) * rnd) + 1
end
-- failed moves a job on whose attempt ended badly. f: kind, worker, used,
-- after (ms, 0: backoff), rnd, json, data (event), reason.
local function failed(j, f)
  call('HSET', j.k, 'fl', f.json)
  unlease(j, f.used)
  if f.kind == 'crash' or f.kind == 'stuck' or f.kind == 'died' then
    j.cr = j.cr + 1
    count('crashes')
    j.di = f.kind == 'died' and j.di + 1 or 0
    local w = '\n' .. string.sub(f.worker, 1, 100) .. '\n'
    if not string.find(j.cw, w, 1, true) then j.cw = j.cw .. w end
    call('HSET', j.k, 'cr', j.cr, 'di', j.di, 'cw', j.cw)
    local _, n = string.gsub(j.cw, '\n', '')
    if j.di >= 2 or (j.cr >= C.crashes and n >= 4) or j.cr >= 2 * C.crashes then
      call('HSET', K('poison'), j.fp, j.id)
      finish(j, 'quarantined', 'failed', S.quarantined, f.kind, S.quarantinedText)
    elseif j.cr == 1 then toLine(j)
    else later(j, backoff(j.cr - 1, f.rnd)) end
    return
  end
  if f.kind ~= 'input' then
    j.fa = j.fa + 1
    call('HSET', j.k, 'fa', j.fa)
    if j.fa < C.failures then
      later(j, f.after > 0 and f.after or backoff(j.fa, f.rnd))
      return
    end
  end
  finish(j, 'failed', 'failed', f.data, f.kind, f.reason)
end
-- holder loads the job if the lease is current; else nil, why, job.
local function holder(id, li)
  local j = load(id)
  if j and j.st == 'leased' and j.li == li then return j end
  if j and j.st == 'cancelled' and j.li == li then return nil, 'cancelled', j end
  return nil, 'lost', j
end
local function again(j, li, verb)
  local p = li .. ':' .. verb .. ':'
  if j and string.sub(j.fi, 1, #p) == p then return string.sub(j.fi, #p + 1) end
end
-- enqueue stores one request. r: id, req, fp, cl, po, so, us, ba, ln, or, pv, sn, key, qt.
local function enqueue(r)
  local j = {id = r.id, k = K('j', r.id), cl = r.cl, po = r.po, us = r.us, ba = r.ba, at = 0, li = '', hd = ''}
  j.sq = call('HINCRBY', K('meta'), 'seq', 1)
  local h = {'r', r.req, 'fp', r.fp, 'cl', r.cl, 'po', r.po, 'so', r.so, 'us', r.us, 'sq', j.sq, 'sb', now(), 'or', r['or'], 'sn', r.sn}
  if r.ba ~= '' then h[#h+1] = 'ba'; h[#h+1] = r.ba; h[#h+1] = 'ln'; h[#h+1] = r.ln end
  if r.pv ~= '' then h[#h+1] = 'pv'; h[#h+1] = r.pv end
  if r.qt ~= '' then h[#h+1] = 'qt'; h[#h+1] = r.qt end
  call('HSET', j.k, unpack(h))
  if r.ba ~= '' then call('ZADD', K('xb', r.ba), j.sq, r.id) else call('ZADD', K('x', r.us), j.sq, r.id) end
  call('ZADD', K('rev'), 0, string.reverse(r.id))
  if r.key ~= '' then call('SET', K('i', r.key), r.id, 'PX', C.keylife) end
  toLine(j)
  count('submitted')
  event(j, 'accepted', '{"stage":"queued"}')
end
`

// Each script stands under its ARGV and what it returns. KEYS[1] only routes
// to the slot. All may run twice with the same arguments.
const (
	// ARGV: id req fp class pool sort user batch line origin private nonce key quotas(text "cost key\n") nq {key cost limit life}…
	// returns {new 0|1, id, status} or {"limit"|"full"|"quota"|"poison"|"pools", detail}
	submitLua = `
local r = {id=ARGV[1], req=ARGV[2], fp=ARGV[3], cl=ARGV[4], po=ARGV[5], so=ARGV[6], us=ARGV[7], ba=ARGV[8], ln=ARGV[9], ['or']=ARGV[10], pv=ARGV[11], sn=ARGV[12], key=ARGV[13], qt=ARGV[14]}
local id = r.id
if r.key ~= '' then id = call('GET', K('i', r.key)) or id end
local v = call('HMGET', K('j', id), 'st', 'sn')
if v[1] then return {v[2] == r.sn and 1 or 0, id, v[1]} end
if id ~= r.id then return {0, id, 'done'} end
local by = call('HGET', K('poison'), r.fp)
if by then return {'poison', by} end
if r.ba == '' then
  if C.queueduser > 0 and tonumber(call('HGET', K('u', r.us), 'qd') or 0) >= C.queueduser then return {'limit', ''} end
  if C.queuedall > 0 and tonumber(call('HGET', K('meta'), 'queued') or 0) >= C.queuedall then return {'full', ''} end
end
if call('SISMEMBER', K('pools'), r.po) == 0 and call('SCARD', K('pools')) >= 256 then return {'pools', ''} end
local n = tonumber(ARGV[15])
for i = 0, n - 1 do
  local a = 16 + 4 * i
  if tonumber(call('GET', K('n', 'quota/' .. ARGV[a])) or 0) + tonumber(ARGV[a+1]) > tonumber(ARGV[a+2]) then return {'quota', tostring(i)} end
end
for i = 0, n - 1 do
  local a = 16 + 4 * i
  local k = K('n', 'quota/' .. ARGV[a])
  local fresh = call('EXISTS', k) == 0
  call('INCRBY', k, ARGV[a+1])
  if fresh and tonumber(ARGV[a+3]) > 0 then call('PEXPIRE', k, ARGV[a+3]) end
end
enqueue(r)
return {1, r.id, 'queued'}`

	// ARGV: id; returns {status} before, or {"over", status}, or {"none"}
	cancelLua = `
local j = load(ARGV[1])
if not j then return {'none'} end
if j.st == 'cancelled' then return {'cancelled'} end
if j.st == 'done' or j.st == 'failed' or j.st == 'quarantined' then return {'over', j.st} end
cancel(j)
return {'cancelled'}`

	// ARGV: lease worker name beside register-info(""=no) nclasses class… pool…
	// returns false, or {id, {field value …}}
	leaseLua = `
local li, worker, name, beside, info, nc = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local had = call('HGET', K('lids'), li)
if had then return {had, call('HGETALL', K('j', had))} end
if info ~= '' then
  call('HSET', K('workers'), name, info)
  call('ZADD', K('seen'), now(), name)
end
if call('EXISTS', K('sw')) == 1 and (switched('queue') or switched('worker', name)) then return false end
local order = {}
for i = 1, nc do order[i] = ARGV[6 + i] end
if nc == 2 then
  local old = call('ZRANGE', K('wt', 'bulk'), 0, 0, 'WITHSCORES')
  if old[2] and now() - tonumber(old[2]) > C.bulkafter and (tonumber(call('HGET', K('c'), 'leases') or 0) + 1) % C.bulkevery == 0 then
    order[1], order[2] = order[2], order[1]
  end
end
for _, cl in ipairs(order) do
  local best
  if not switched('class', cl) then
    for p = 7 + nc, #ARGV do
      local po = ARGV[p]
      local us = call('ZRANGE', K('v', cl, po), 0, 7, 'WITHSCORES')
      for i = 1, #us, 2 do
        local vt = tonumber(us[i+1])
        if best and vt > best.vt then break end
        local head = call('ZRANGE', K('l', cl, po, us[i]), 0, 0, 'WITHSCORES')
        local sq = tonumber(head[2] or 0)
        if head[1] and (not best or vt < best.vt or sq < best.sq) then best = {po=po, us=us[i], vt=vt, id=head[1], sq=sq} end
      end
    end
  end
  if best then
    local j = load(best.id)
    if not j then -- an entry without its job: repair and let the caller ask again
      call('ZREM', K('l', cl, best.po, best.us), best.id)
      call('ZREM', K('wt', cl), best.id)
      if call('EXISTS', K('l', cl, best.po, best.us)) == 0 then
        call('ZREM', K('v', cl, best.po), best.us)
        call('HINCRBY', K('u', best.us), 'ln:' .. cl, -1)
      end
      wake(best.po)
      return false
    end
    fromLine(j)
    if best.vt > floor(cl) then call('HSET', K('meta'), 'floor:' .. cl, best.vt) end
    local est = tonumber(call('HGET', K('est'), j.so) or '')
    if not est then est = string.sub(j.po, -6) == '/views' and C.estviews or C.estmesh end
    j.at = j.at + 1
    j.li = li
    call('HSET', j.k, 'st', 'leased', 'li', li, 'wk', worker, 'wn', name, 'bs', beside, 'at', j.at, 'sa', now(), 'dl', now() + C.lease, 'es', est, 'ch', est)
    call('HDEL', j.k, 'pg')
    call('ZADD', K('leases'), now() + C.lease, j.id)
    if beside == '' then call('ZADD', K('eta'), now() + est * 1000, j.id) end
    call('HSET', K('lids'), li, j.id)
    charge(j.us, cl, est)
    runs(j.us, 1)
    count('leases')
    event(j, 'started')
    if call('EXISTS', K('v', 'interactive', best.po), K('v', 'bulk', best.po)) > 0 then wake(best.po) end
    return {j.id, call('HGETALL', j.k)}
  end
end
return false`

	// ARGV: id lease progress checkpoint views eventdata viewsdata remaining-ms
	// returns {directive, deadline}
	beatLua = `
local j, why = holder(ARGV[1], ARGV[2])
if not j then return {why, 0} end
local dl = now() + C.lease
call('HSET', j.k, 'dl', dl)
call('ZADD', K('leases'), dl, j.id)
call('ZADD', K('seen'), 'XX', now(), j.wn)
if ARGV[4] ~= '' then call('HSET', j.k, 'ck', ARGV[4]) end
if ARGV[5] ~= '' then
  local old = call('HMGET', j.k, 'vi', 'vb')
  if old[1] ~= ARGV[5] or old[2] ~= j.li then
    call('HSET', j.k, 'vi', ARGV[5], 'vb', j.li)
    event(j, 'views', ARGV[7])
  end
end
if ARGV[3] ~= '' then
  if tonumber(ARGV[8]) > 0 then call('ZADD', K('eta'), 'XX', now() + ARGV[8], j.id) end
  if j.pg ~= ARGV[3] then
    call('HSET', j.k, 'pg', ARGV[3])
    if ARGV[6] ~= '' then event(j, 'progress', ARGV[6]) end
  end
end
if switched('worker', j.wn) then return {'drain', dl} end
if j.cl ~= 'bulk' then return {'go on', dl} end
if j.as == j.li then return {'yield', dl} end
if j.yi > 0 and now() - j.yi < C.yieldgap then return {'go on', dl} end
local old = call('ZRANGE', K('wt', 'interactive'), 0, 0, 'WITHSCORES')
if not old[2] or now() - tonumber(old[2]) < C.yieldafter or switched('queue') or switched('class', 'interactive') then return {'go on', dl} end
local info = call('HGET', K('workers'), j.wn)
if not info then return {'go on', dl} end
local waiting = 0
for _, po in ipairs(cjson.decode(info).pools) do
  for _, u in ipairs(call('ZRANGE', K('v', 'interactive', po), 0, 99)) do
    waiting = waiting + call('ZCARD', K('l', 'interactive', po, u))
  end
end
local soon = call('ZCOUNT', K('eta'), now(), now() + C.yieldhorizon)
local own = tonumber(call('ZSCORE', K('eta'), j.id) or 0)
if own >= now() and own <= now() + C.yieldhorizon then soon = soon - 1 end
-- those already asked to yield will come free too
soon = soon + call('ZCOUNT', K('asked'), now() - C.lease, '+inf')
if waiting > soon then
  call('HSET', j.k, 'as', j.li, 'yi', now())
  call('ZADD', K('asked'), now(), j.id)
  return {'yield', dl}
end
return {'go on', dl}`

	// ARGV: id lease result eventdata used; returns {"ok"} or {why}
	completeLua = `
local j, why, x = holder(ARGV[1], ARGV[2])
if not j then
  if again(x, ARGV[2], 'done') then return {'ok'} end
  count('refused_' .. why)
  return {why}
end
call('ZREM', K('asked'), j.id)
unlease(j, tonumber(ARGV[5]))
call('HSET', j.k, 're', ARGV[3], 'fi', ARGV[2] .. ':done:done')
call('HDEL', j.k, 'fl', 'pg')
local d = K('d', j.so)
local n = call('LPUSH', d, j.ud)
if n > C.samples then call('LTRIM', d, 0, C.samples - 1) end
if n <= 10 or j.sq % 5 == 0 then
  local v = call('LRANGE', d, 0, C.samples - 1)
  for i = 1, #v do v[i] = tonumber(v[i]) end
  table.sort(v)
  call('HSET', K('est'), j.so, v[math.min(math.floor(#v / 2) + 1, #v)])
end
finish(j, 'done', 'done', ARGV[4])
return {'ok'}`

	// ARGV: id lease kind worker used after-ms rnd json eventdata reason; returns {status} or {"lost"|"cancelled"|…, ""}
	failLua = `
local j, why, x = holder(ARGV[1], ARGV[2])
if not j then
  local st = again(x, ARGV[2], 'fail')
  if st then return {'ok', st} end
  count('refused_' .. why)
  return {why, ''}
end
call('ZREM', K('asked'), j.id)
failed(j, {kind=ARGV[3], worker=ARGV[4] ~= '' and ARGV[4] or j.wk, used=tonumber(ARGV[5]), after=tonumber(ARGV[6]), rnd=tonumber(ARGV[7]), json=ARGV[8], data=ARGV[9], reason=ARGV[10]})
call('HSET', j.k, 'fi', ARGV[2] .. ':fail:' .. j.st)
return {'ok', j.st}`

	// ARGV: id lease reason used checkpoint; returns {"ok"} or {why}
	// An empty id stands for the job that holds the lease, if any.
	backLua = `
local id = ARGV[1]
if id == '' then
  id = call('HGET', K('lids'), ARGV[2])
  if not id then return {'ok'} end
end
local j, why, x = holder(id, ARGV[2])
if not j then
  if again(x, ARGV[2], 'back') then return {'ok'} end
  count('refused_' .. why)
  return {why}
end
call('ZREM', K('asked'), j.id)
if ARGV[5] ~= '' then call('HSET', j.k, 'ck', ARGV[5]) end
unlease(j, tonumber(ARGV[4]))
if ARGV[3] == 'yield' then call('HSET', j.k, 'yi', now()) end
count('given_back_' .. ARGV[3])
toLine(j)
call('HSET', j.k, 'fi', ARGV[2] .. ':back:queued')
return {'ok'}`

	// ARGV: rnd failure-json-prefix; returns {rescued, promoted, dropped, repaired}
	tickLua = `
local rescued, promoted, dropped, repaired = 0, 0, 0, 0
for _, id in ipairs(call('ZRANGE', K('leases'), '-inf', '(' .. now(), 'BYSCORE', 'LIMIT', 0, 100)) do
  local j = load(id)
  if j and j.st == 'leased' then
    count('lost')
    call('ZREM', K('asked'), id)
    failed(j, {kind='crash', worker=j.wk, used=0, after=0, rnd=tonumber(ARGV[1]), json=S.lost .. cjson.encode(j.wk) .. '}'})
    rescued = rescued + 1
  else -- a lease entry without a leased job
    call('ZREM', K('leases'), id)
    repaired = repaired + 1
  end
end
for _, id in ipairs(call('ZRANGE', K('later'), '-inf', now(), 'BYSCORE', 'LIMIT', 0, 100)) do
  call('ZREM', K('later'), id)
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
  local k = K('t', st)
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
call('ZREMRANGEBYSCORE', K('asked'), '-inf', now() - C.lease)
for _, n in ipairs(call('ZRANGE', K('seen'), '-inf', now() - 3600000, 'BYSCORE', 'LIMIT', 0, 100)) do
  call('ZREM', K('seen'), n)
  call('HDEL', K('workers'), n)
end
local cut = call('XLEN', K('ev')) - C.keepevents
if cut > 0 then
  local n = call('XTRIM', K('ev'), 'MAXLEN', '~', C.keepevents, 'LIMIT', 1000)
  if n > 0 then count('trimmed', n) end
end
call('XTRIM', K('al'), 'MAXLEN', '~', 10000)
return {rescued, promoted, dropped, repaired}`
)
