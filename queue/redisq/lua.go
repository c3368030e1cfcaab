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
local T
local JOBS, USERS, SUMS = {}, {}, {}
local CLASSES = {'interactive', 'bulk'}
local function now()
  if not T then
    local t = call('TIME')
    T = t[1] * 1000 + math.floor(t[2] / 1000) + (shift and shift() or 0)
  end
  return T
end
-- stamp is the time as text: turning a number into text costs more than a call.
local NOW
local function stamp()
  if not NOW then NOW = string.format('%d', now()) end
  return NOW
end
-- Jobs and users are read once, changed in memory and written back by flush.
local F = {'st','cl','po','us','ba','ln','hd','sq','sa','at','li','fi','qt','ch','ud','ev','as','or','pv','so','wk','wn','fa','cr','di','cw','fp','yi','pg'}
local NUM = {ln=1,sq=1,sa=1,at=1,fa=1,cr=1,di=1,ch=1,ud=1,ev=1,yi=1}
local function load(id, n)
  local j = JOBS[id]
  if j then return j end
  local k = P .. 'j:' .. id
  local v = call('HMGET', k, unpack(F, 1, n))
  if not v[1] then return nil end
  j = {id = id, k = k, w = {}}
  for i = 1, n or #F do
    local f = F[i]
    if NUM[f] then j[f] = tonumber(v[i] or 0) or 0 else j[f] = v[i] or '' end
  end
  JOBS[id] = j
  return j
end
local function set(j, f, v)
  local w = j.w
  w[#w+1] = f
  w[#w+1] = v
end
local function U(u)
  local x = USERS[u]
  if x then return x end
  local k = P .. 'u:' .. u
  local v = call('HMGET', k, 'w', 'qd', 'rn', 'pz', 'vt:interactive', 'va:interactive', 'ln:interactive', 'vt:bulk', 'va:bulk', 'ln:bulk')
  x = {k = k, c = {}, w = tonumber(v[1] or 1), keep = v[1], qd = tonumber(v[2] or 0), rn = tonumber(v[3] or 0), pz = v[4] == '1',
    vt = {interactive = tonumber(v[5] or ''), bulk = tonumber(v[8] or '')}, va = {interactive = tonumber(v[6] or 0), bulk = tonumber(v[9] or 0)},
    ln = {interactive = tonumber(v[7] or 0), bulk = tonumber(v[10] or 0)}}
  USERS[u] = x
  return x
end
local function flush()
  for _, j in pairs(JOBS) do
    if j.w[1] then call('HSET', j.k, unpack(j.w)); j.w = {} end
  end
  for _, x in pairs(USERS) do
    local a = {}
    for f, v in pairs(x.c) do a[#a+1] = f; a[#a+1] = v end
    if a[1] then call('HSET', x.k, unpack(a)); x.c = {} end
  end
  for k, n in pairs(SUMS) do
    if n ~= 0 then call('HINCRBY', P .. 'c', k, n) end
  end
  SUMS = {}
end
local function count(name, n) SUMS[name] = (SUMS[name] or 0) + (n or 1) end
local function switched(scope, name) return call('HEXISTS', P .. 'sw', scope .. ':' .. (name or '')) == 1 end
local function floor(cl) return tonumber(call('HGET', P .. 'meta', 'floor:' .. cl) or 0) end

-- parked: the user is paused or at the limit of running jobs.
local function parked(x) return x.pz or (C.running > 0 and x.rn >= C.running) end
-- share sets a user's virtual time, in the order too. po: where a line is likely.
local function share(u, cl, vt, po)
  local x = U(u)
  x.vt[cl], x.va[cl] = vt, now()
  x.c['vt:' .. cl], x.c['va:' .. cl] = vt, now()
  if x.ln[cl] <= 0 then return end
  local z = P .. (parked(x) and 'vp:' or 'v:') .. cl .. ':'
  if po and x.ln[cl] == 1 and call('EXISTS', P .. 'l:' .. cl .. ':' .. po .. ':' .. u) == 1 then
    call('ZADD', z .. po, 'XX', vt, u)
    return
  end
  for _, p in ipairs(call('SMEMBERS', P .. 'pools')) do call('ZADD', z .. p, 'XX', vt, u) end
end
-- enter gives the virtual time at which a user joins a class: the own one,
-- its debt above the floor decayed, and at least the floor.
local function enter(u, cl, force)
  local x = U(u)
  local vt = x.vt[cl]
  if vt and not force and x.ln[cl] > 0 then return vt end
  local fl = floor(cl)
  if not vt or vt < fl then vt = fl
  elseif C.halflife > 0 then vt = fl + (vt - fl) * 2 ^ (-(now() - x.va[cl]) / C.halflife) end
  share(u, cl, vt)
  return vt
end
local function charge(u, cl, sec, po)
  if sec == 0 then return end
  local x = U(u)
  share(u, cl, (x.vt[cl] or 0) + sec / x.w, po)
end
local function wake(po) call('ZADD', P .. 'w:' .. po, 0, '1') end
local function lineAdd(j)
  local l = P .. 'l:' .. j.cl .. ':' .. j.po .. ':' .. j.us
  call('ZADD', l, j.sq, j.id)
  call('ZADD', P .. 'wt:' .. j.cl, stamp(), j.id)
  if call('ZCARD', l) == 1 then
    call('SADD', P .. 'pools', j.po)
    local x, vt = U(j.us), enter(j.us, j.cl)
    call('ZADD', P .. (parked(x) and 'vp:' or 'v:') .. j.cl .. ':' .. j.po, vt, j.us)
    x.ln[j.cl] = x.ln[j.cl] + 1
    x.c['ln:' .. j.cl] = x.ln[j.cl]
  end
  wake(j.po)
end
local function lineRemove(j)
  local l = P .. 'l:' .. j.cl .. ':' .. j.po .. ':' .. j.us
  call('ZREM', l, j.id)
  call('ZREM', P .. 'wt:' .. j.cl, j.id)
  if call('EXISTS', l) == 0 then
    local x = U(j.us)
    call('ZREM', P .. 'v:' .. j.cl .. ':' .. j.po, j.us)
    if parked(x) then call('ZREM', P .. 'vp:' .. j.cl .. ':' .. j.po, j.us) end
    x.ln[j.cl] = x.ln[j.cl] - 1
    x.c['ln:' .. j.cl] = x.ln[j.cl]
    for _, cl in ipairs(CLASSES) do
      if call('EXISTS', P .. 'v:' .. cl .. ':' .. j.po, P .. 'vp:' .. cl .. ':' .. j.po) > 0 then return end
    end
    call('SREM', P .. 'pools', j.po)
  end
end
-- reseat moves a user's lines into or out of the order.
local function reseat(u)
  local x = U(u)
  local out = parked(x)
  for _, cl in ipairs(CLASSES) do
    local moved = false
    for _, po in ipairs(call('SMEMBERS', P .. 'pools')) do
      local from, to = P .. 'v:' .. cl .. ':' .. po, P .. 'vp:' .. cl .. ':' .. po
      if not out then from, to = to, from end
      if call('ZSCORE', from, u) then
        moved = true
        call('ZREM', from, u)
        call('ZADD', to, x.vt[cl] or 0, u)
        wake(po)
      end
    end
    if moved and not out then enter(u, cl, true) end -- who comes back has no credit from absence
  end
end
local function runs(u, n)
  local x = U(u)
  x.rn = x.rn + n
  x.c.rn = x.rn
  if C.running > 0 then reseat(u) end
end
local function waits(j, n)
  if j.ba == '' then
    local x = U(j.us)
    x.qd = x.qd + n
    x.c.qd = x.qd
    count('waiting', n)
  end
end
-- event appends to the outbox; jobs of batches write none.
local function event(j, kind, data)
  if j.ba ~= '' then return end
  j.ev = j.ev + 1
  set(j, 'ev', j.ev)
  call('XADD', P .. 'ev', '*', 'k', kind, 'j', j.id, 'a', j.at, 'l', j.li, 'q', j.ev, 't', stamp(), 'u', j.us, 'p', j.pv, 'o', j['or'], 'd', data or '')
end
local function toLine(j)
  j.st = 'queued'
  set(j, 'st', 'queued')
  if j.ba ~= '' and call('HGET', P .. 'b:' .. j.ba, 'st') == 'paused' then
    j.hd = '1'
    set(j, 'hd', '1')
    call('ZADD', P .. 'held', j.sq, j.id)
  else
    lineAdd(j)
  end
  waits(j, 1)
end
local function fromLine(j)
  if j.hd == '1' then
    call('ZREM', P .. 'held', j.id)
    j.hd = ''
    set(j, 'hd', '')
  else
    lineRemove(j)
  end
  waits(j, -1)
end
local function unlease(j, used)
  if used <= 0 then used = (now() - j.sa) / 1000 end
  charge(j.us, j.cl, used - j.ch, j.po)
  j.ud, j.ch = j.ud + used, 0
  call('ZREM', P .. 'leases', j.id)
  call('ZREM', P .. 'eta', j.id)
  call('HDEL', P .. 'lids', j.li)
  if j.as ~= '' then call('ZREM', P .. 'asked', j.id) end
  set(j, 'ch', 0)
  set(j, 'ud', j.ud)
  runs(j.us, -1)
  local x = U(j.us)
  if x.qd == 0 and x.rn == 0 and not x.pz and not x.keep then call('EXPIRE', x.k, 7776000) end
end
-- refund gives back what the job reserved: all of it, or what counts live jobs.
local function refund(j, all)
  local kept = ''
  for live, cost, key in string.gmatch(j.qt, '(%*?)(%d+) ([^\n]+)\n') do
    local k = P .. 'n:quota/' .. key
    if live == '' and not all then kept = kept .. cost .. ' ' .. key .. '\n'
    elseif call('EXISTS', k) == 1 and call('DECRBY', k, cost) < 0 then call('SET', k, 0, 'KEEPTTL') end
  end
  j.qt = kept
  set(j, 'qt', kept)
end
-- drop deletes a terminal job and its index entries.
local function drop(id)
  local j = load(id)
  if not j then return end
  call('ZREM', P .. 't:' .. j.st, id)
  call('ZREM', P .. 'rev', string.reverse(id))
  if j.ba ~= '' then call('ZREM', P .. 'xb:' .. j.ba, id) else call('ZREM', P .. 'x:' .. j.us, id) end
  call('DEL', j.k)
  JOBS[id] = nil
end
local function batchEvent(id, st)
  local k = P .. 'b:' .. id
  local b = call('HMGET', k, 'nm', 'dn', 'fd', 'cn', 'own', 'or', 'pv')
  call('HSET', k, 'st', st, 'en', stamp())
  call('HDEL', P .. 'sw', 'batch:' .. id)
  call('XADD', P .. 'ev', '*', 'k', 'batch', 'b', id, 't', stamp(), 'u', b[5], 'o', b[6], 'p', b[7],
    's', st, 'nm', b[1], 'dn', b[2], 'fd', b[3], 'cn', b[4])
end
local function batchCheck(id)
  local b = call('HMGET', P .. 'b:' .. id, 'st', 'cu', 'tot', 'rl', 'out')
  if (b[1] ~= 'running' and b[1] ~= 'paused') or tonumber(b[2]) < tonumber(b[3]) or tonumber(b[4]) > 0 or tonumber(b[5]) > 0 then return end
  batchEvent(id, 'ended')
end
local function batchEnd(j, st, reason)
  local k = P .. 'b:' .. j.ba
  local f = st == 'done' and 'dn' or st == 'cancelled' and 'cn' or 'fd'
  call('HINCRBY', k, f, 1)
  if f == 'dn' then call('SETBIT', P .. 'bd:' .. j.ba, j.ln, 1) end
  if f == 'fd' then
    call('SETBIT', P .. 'bf:' .. j.ba, j.ln, 1)
    if call('HLEN', P .. 'bw:' .. j.ba) < C.reasons then call('HSET', P .. 'bw:' .. j.ba, j.ln, reason) end
  end
  local tb = P .. 'tb:' .. j.ba .. ':' .. st
  if call('RPUSH', tb, j.id) > C.keepbatch then
    local old = call('LPOP', tb)
    if old and old ~= j.id then drop(old) end
  end
  if call('HINCRBY', k, 'out', -1) == 0 then batchCheck(j.ba) end
end
-- finish makes a job that has left its place terminal, with its one event.
-- fk: kind of the failure; data: JSON of the event's extra fields; reason: for batches.
local function finish(j, st, kind, data, fk, reason)
  j.st = st
  set(j, 'st', st)
  set(j, 'en', stamp())
  call('ZADD', P .. 't:' .. st, stamp(), j.id)
  count(st)
  if j.qt ~= '' then refund(j, (st == 'failed' and fk ~= 'input') or st == 'quarantined' or (st == 'cancelled' and j.at == 0)) end
  if j.ba ~= '' then batchEnd(j, st, reason or '') else event(j, kind, data) end
end
local function cancel(j)
  if j.st == 'queued' then fromLine(j)
  elseif j.st == 'scheduled' then call('ZREM', P .. 'later', j.id); waits(j, -1)
  elseif j.st == 'leased' then unlease(j, 0) end
  finish(j, 'cancelled', 'cancelled')
end
local function later(j, ms)
  j.st = 'scheduled'
  set(j, 'st', 'scheduled')
  set(j, 'nb', now() + ms)
  call('ZADD', P .. 'later', now() + ms, j.id)
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
  set(j, 'fl', f.json)
  unlease(j, f.used)
  if f.kind == 'crash' or f.kind == 'stuck' or f.kind == 'died' then
    j.cr = j.cr + 1
    count('crashes')
    j.di = f.kind == 'died' and j.di + 1 or 0
    local w = '\n' .. string.sub(f.worker, 1, 100) .. '\n'
    if not string.find(j.cw, w, 1, true) then j.cw = j.cw .. w end
    set(j, 'cr', j.cr)
    set(j, 'di', j.di)
    set(j, 'cw', j.cw)
    local _, n = string.gsub(j.cw, '\n', '')
    if j.di >= 2 or (j.cr >= C.crashes and n >= 4) or j.cr >= 2 * C.crashes then
      call('HSET', P .. 'poison', j.fp, j.id)
      finish(j, 'quarantined', 'failed', S.quarantined, f.kind, S.quarantinedText)
    elseif j.cr == 1 then toLine(j)
    else later(j, backoff(j.cr - 1, f.rnd)) end
    return
  end
  if f.kind ~= 'input' then
    j.fa = j.fa + 1
    set(j, 'fa', j.fa)
    if j.fa < C.failures then
      later(j, f.after > 0 and f.after or backoff(j.fa, f.rnd))
      return
    end
  end
  finish(j, 'failed', 'failed', f.data, f.kind, f.reason)
end
-- holder loads the job if the lease is current; else nil, why, job.
local function holder(id, li, n)
  local j = load(id, n)
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
  local j = {id = r.id, k = P .. 'j:' .. r.id, cl = r.cl, po = r.po, us = r.us, ba = r.ba, at = 0, li = '', hd = '', ev = 0, ['or'] = r['or'], pv = r.pv}
  j.sq = call('HINCRBY', P .. 'meta', 'seq', 1)
  j.w = {'r', r.req, 'fp', r.fp, 'cl', r.cl, 'po', r.po, 'so', r.so, 'us', r.us, 'sq', j.sq, 'sb', stamp(), 'or', r['or'], 'sn', r.sn}
  JOBS[r.id] = j
  if r.ba ~= '' then set(j, 'ba', r.ba); set(j, 'ln', r.ln) end
  if r.pv ~= '' then set(j, 'pv', r.pv) end
  if r.qt ~= '' then set(j, 'qt', r.qt) end
  if r.ba ~= '' then call('ZADD', P .. 'xb:' .. r.ba, j.sq, r.id) else call('ZADD', P .. 'x:' .. r.us, j.sq, r.id) end
  call('ZADD', P .. 'rev', 0, string.reverse(r.id))
  if r.key ~= '' then call('SET', P .. 'i:' .. r.key, r.id, 'PX', C.keylife) end
  local x = U(r.us)
  if x.qd == 0 and x.rn == 0 then call('PERSIST', x.k) end
  toLine(j)
  event(j, 'accepted', '{"stage":"queued"}')
end
`

// Each script stands under its ARGV and what it returns. KEYS[1] only routes
// to the slot. All may run twice with the same arguments.
const (
	// ARGV: id req fp class pool sort user batch line origin private nonce key quotas(text "cost key\n", "*" before it if live) nq {key cost limit life}…
	// returns {new 0|1, id, status} or {"limit"|"full"|"quota"|"poison"|"pools", detail}
	submitLua = `
local r = {id=ARGV[1], req=ARGV[2], fp=ARGV[3], cl=ARGV[4], po=ARGV[5], so=ARGV[6], us=ARGV[7], ba=ARGV[8], ln=ARGV[9], ['or']=ARGV[10], pv=ARGV[11], sn=ARGV[12], key=ARGV[13], qt=ARGV[14]}
local id = r.id
if r.key ~= '' then id = call('GET', P .. 'i:' .. r.key) or id end
local v = call('HMGET', P .. 'j:' .. id, 'st', 'sn')
if v[1] then return {v[2] == r.sn and 1 or 0, id, v[1]} end
if id ~= r.id then return {0, id, 'done'} end
local by = call('HGET', P .. 'poison', r.fp)
if by then return {'poison', by} end
if r.ba == '' then
  if C.queueduser > 0 and U(r.us).qd >= C.queueduser then return {'limit', ''} end
  if C.queuedall > 0 and tonumber(call('HGET', P .. 'c', 'waiting') or 0) >= C.queuedall then return {'full', ''} end
end
if call('SISMEMBER', P .. 'pools', r.po) == 0 and call('SCARD', P .. 'pools') >= 256 then return {'pools', ''} end
local n = tonumber(ARGV[15])
for i = 0, n - 1 do
  local a = 16 + 4 * i
  if tonumber(call('GET', P .. 'n:' .. 'quota/' .. ARGV[a]) or 0) + tonumber(ARGV[a+1]) > tonumber(ARGV[a+2]) then return {'quota', tostring(i)} end
end
for i = 0, n - 1 do
  local a = 16 + 4 * i
  local k = P .. 'n:' .. 'quota/' .. ARGV[a]
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
local had = call('HGET', P .. 'lids', li)
if had then return {had, call('HGETALL', P .. 'j:' .. had)} end
if info ~= '' then
  call('HSET', P .. 'workers', name, info)
  call('ZADD', P .. 'seen', stamp(), name)
end
if call('EXISTS', P .. 'sw') == 1 and (switched('queue') or switched('worker', name)) then return false end
local order = {}
for i = 1, nc do order[i] = ARGV[6 + i] end
if nc == 2 then
  local old = call('ZRANGE', P .. 'wt:bulk', 0, 0, 'WITHSCORES')
  if old[2] and now() - tonumber(old[2]) > C.bulkafter and (tonumber(call('HGET', P .. 'c', 'leases') or 0) + 1) % C.bulkevery == 0 then
    order[1], order[2] = order[2], order[1]
  end
end
for _, cl in ipairs(order) do
  local best
  if not switched('class', cl) then
    for p = 7 + nc, #ARGV do
      local po = ARGV[p]
      local us = call('ZRANGE', P .. 'v:' .. cl .. ':' .. po, 0, 7, 'WITHSCORES')
      for i = 1, #us, 2 do
        local vt = tonumber(us[i+1])
        if best and vt > best.vt then break end
        local head = call('ZRANGE', P .. 'l:' .. cl .. ':' .. po .. ':' .. us[i], 0, 0, 'WITHSCORES')
        local sq = tonumber(head[2] or 0)
        if head[1] and (not best or vt < best.vt or sq < best.sq) then best = {po=po, us=us[i], vt=vt, id=head[1], sq=sq} end
      end
    end
  end
  if best then
    local j = load(best.id, 20)
    if not j then -- an entry without its job: repair and let the caller ask again
      call('ZREM', P .. 'l:' .. cl .. ':' .. best.po .. ':' .. best.us, best.id)
      call('ZREM', P .. 'wt:' .. cl, best.id)
      if call('EXISTS', P .. 'l:' .. cl .. ':' .. best.po .. ':' .. best.us) == 0 then
        call('ZREM', P .. 'v:' .. cl .. ':' .. best.po, best.us)
        local x = U(best.us)
        x.ln[cl] = x.ln[cl] - 1
        x.c['ln:' .. cl] = x.ln[cl]
      end
      wake(best.po)
      return false
    end
    fromLine(j)
    if best.vt > floor(cl) then call('HSET', P .. 'meta', 'floor:' .. cl, best.vt) end
    local est = tonumber(call('HGET', P .. 'est', j.so) or '')
    if not est then est = string.sub(j.po, -6) == '/views' and C.estviews or C.estmesh end
    j.at = j.at + 1
    j.li = li
    local w = j.w
    for _, x in ipairs({'st', 'leased', 'li', li, 'wk', worker, 'wn', name, 'bs', beside, 'at', j.at, 'sa', stamp(), 'dl', now() + C.lease, 'es', est, 'ch', est, 'pg', '', 'as', ''}) do w[#w+1] = x end
    call('ZADD', P .. 'leases', now() + C.lease, j.id)
    if beside == '' then call('ZADD', P .. 'eta', now() + est * 1000, j.id) end
    call('HSET', P .. 'lids', li, j.id)
    charge(j.us, cl, est, best.po)
    runs(j.us, 1)
    count('leases')
    event(j, 'started')
    if call('EXISTS', P .. 'v:interactive:' .. best.po, P .. 'v:bulk:' .. best.po) > 0 then wake(best.po) end
    flush()
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

	// ARGV: id lease result eventdata used; returns {"ok"} or {why}
	completeLua = `
local j, why, x = holder(ARGV[1], ARGV[2], 20)
if not j then
  if again(x, ARGV[2], 'done') then return {'ok'} end
  count('refused_' .. why)
  return {why}
end
unlease(j, tonumber(ARGV[5]))
for _, x in ipairs({'re', ARGV[3], 'fi', ARGV[2] .. ':done:done', 'fl', '', 'pg', ''}) do j.w[#j.w+1] = x end
local d = P .. 'd:' .. j.so
local n = call('LPUSH', d, j.ud)
if n > C.samples then call('LTRIM', d, 0, C.samples - 1) end
if n <= 10 or j.sq % 5 == 0 then
  local v = call('LRANGE', d, 0, C.samples - 1)
  for i = 1, #v do v[i] = tonumber(v[i]) end
  table.sort(v)
  call('HSET', P .. 'est', j.so, v[math.min(math.floor(#v / 2) + 1, #v)])
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
local j, why, x = holder(id, ARGV[2])
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
