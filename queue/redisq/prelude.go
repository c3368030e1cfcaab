package redisq

// prelude are the functions that all scripts share. Before a script is loaded
// `P .. '` becomes the key prefix with the hash tag, `C.x` a number of the
// configuration and `S.x` a sentence (see [Queue.source]): a table would have to
// be made at each call. A test may define `shift` to move the clock.
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
//	c               hash    counters; among them seq, waiting, leases, floor:<class>
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
local JOBS, USERS, SUMS, K = {}, {}, {}, {}
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
-- What never changes stands in the field m, a line each: class, pool, sort,
-- batch, line, private, user, origin, fingerprint.
local FIXED = '^([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*)\n([^\n]*\n([^\n]*)\n.*)$'
local function fingerprint(m) return string.match(m, '[^\n]*$') end
-- make forms a job from its fields as they are in the hash. One constructor: a
-- table that grows is slow.
local function make(id, k, v)
  local cl, po, so, ba, ln, tail, us = string.match(v[2], FIXED)
  local j = {id=id, k=k, w={}, st=v[1], m=v[2], sq=v[3], hd=v[4] or '', sa=tonumber(v[5] or 0), at=tonumber(v[6] or 0), li=v[7] or '', fi=v[8] or '',
    qt=v[9] or '', ch=tonumber(v[10] or 0), ud=tonumber(v[11] or 0), ev=tonumber(v[12] or 0), as=v[13] or '',
    yi=v[14], wk=v[15], wn=v[16], fa=v[17], cr=v[18], di=v[19], cw=v[20], pg=v[21],
    cl=cl, po=po, so=so, ba=ba, ln=ln, tail=tail, us=us}
  JOBS[id] = j
  return j
end
-- load reads a job.
local function load(id)
  local j = JOBS[id]
  if j then return j end
  local k = P .. 'j:' .. id
  local v = call('HMGET', k, 'st', 'm', 'sq', 'hd', 'sa', 'at', 'li', 'fi', 'qt', 'ch', 'ud', 'ev', 'as', 'yi', 'wk', 'wn', 'fa', 'cr', 'di', 'cw', 'pg')
  if not v[1] then return nil end
  j = make(id, k, v)
  j.yi, j.fa, j.cr, j.di = tonumber(j.yi or '') or 0, tonumber(j.fa or '') or 0, tonumber(j.cr or '') or 0, tonumber(j.di or '') or 0
  j.wk, j.wn, j.cw, j.pg = j.wk or '', j.wn or '', j.cw or '', j.pg or ''
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
-- K holds counters that a script has read; flush writes them together.
local function count(name, n) SUMS[name] = (SUMS[name] or 0) + (n or 1) end
local function flush()
  for _, j in pairs(JOBS) do
    if j.w[1] then call('HSET', j.k, unpack(j.w)); j.w = {} end
  end
  for _, x in pairs(USERS) do
    local a = {}
    for f, v in pairs(x.c) do a[#a+1] = f; a[#a+1] = v end
    if a[1] then call('HSET', x.k, unpack(a)); x.c = {} end
  end
  local a = {}
  for k, n in pairs(SUMS) do
    if K[k] then
      K[k] = K[k] + n
      a[#a+1] = k
      a[#a+1] = K[k]
    elseif n ~= 0 then call('HINCRBY', P .. 'c', k, n) end
  end
  if a[1] then call('HSET', P .. 'c', unpack(a)) end
  SUMS = {}
end
local ANY
local function switched(scope, name)
  if ANY == nil then ANY = call('EXISTS', P .. 'sw') == 1 end
  return ANY and call('HEXISTS', P .. 'sw', scope .. ':' .. (name or '')) == 1
end
local function floor(cl) return K['floor:' .. cl] or tonumber(call('HGET', P .. 'c', 'floor:' .. cl) or 0) end

-- parked: the user is paused or at the limit of running jobs.
local function parked(x) return x.pz or (C.running > 0 and x.rn >= C.running) end
-- share sets a user's virtual time, in the order too. po: where a line is likely.
local function share(u, cl, vt, po)
  local x = U(u)
  x.vt[cl], x.va[cl] = vt, now()
  x.c['vt:' .. cl], x.c['va:' .. cl] = vt, stamp()
  if x.ln[cl] <= 0 then return end
  local z = (parked(x) and P .. 'vp:' or P .. 'v:') .. cl .. ':'
  if po and x.ln[cl] == 1 and call('ZADD', z .. po, 'XX', 'CH', vt, u) == 1 then return end
  for _, p in ipairs(call('SMEMBERS', P .. 'pools')) do call('ZADD', z .. p, 'XX', vt, u) end
end
-- enter gives the virtual time at which a user joins a class: the own one,
-- its debt above the floor decayed, and at least the floor. Users who join at
-- the floor stand there in the order of their jobs, a nanosecond apart.
local function enter(u, cl, sq, force)
  local x = U(u)
  local vt = x.vt[cl]
  if vt and not force and x.ln[cl] > 0 then return vt end
  local fl = floor(cl)
  if not vt or vt < fl then vt = fl + sq % 1000000 * 1e-9
  elseif C.halflife > 0 then vt = fl + (vt - fl) * 2 ^ (-(now() - x.va[cl]) / C.halflife) end
  share(u, cl, vt)
  return vt
end
local function charge(u, cl, sec, po)
  if sec == 0 then return end
  local x = U(u)
  share(u, cl, (x.vt[cl] or 0) + sec / x.w, po)
end
local function wake(po) call('ZADD', P .. 'w:' .. po, '0', '1') end
local function lineAdd(j)
  local l = P .. 'l:' .. j.cl .. ':' .. j.po .. ':' .. j.us
  call('ZADD', l, j.sq, j.id)
  call('ZADD', P .. 'wt:' .. j.cl, stamp(), j.id)
  if call('ZCARD', l) == 1 then
    call('SADD', P .. 'pools', j.po)
    local x, vt = U(j.us), enter(j.us, j.cl, j.sq)
    call('ZADD', (parked(x) and P .. 'vp:' or P .. 'v:') .. j.cl .. ':' .. j.po, vt, j.us)
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
    if moved and not out then enter(u, cl, 0, true) end -- who comes back has no credit from absence
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
  call('XADD', P .. 'ev', '*', 'e', string.format('%s\n%s\n%d\n%s\n%d\n%s\n', kind, j.id, j.at, j.li, j.ev, stamp()) .. j.tail, 'd', data or '')
end
-- place puts a queued job where it waits.
local function place(j)
  if j.ba ~= '' and call('HGET', P .. 'b:' .. j.ba, 'st') == 'paused' then
    j.hd = '1'
    set(j, 'hd', '1')
    call('ZADD', P .. 'held', j.sq, j.id)
  else
    lineAdd(j)
  end
  waits(j, 1)
end
local function toLine(j)
  j.st = 'queued'
  set(j, 'st', 'queued')
  place(j)
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
      call('HSET', P .. 'poison', fingerprint(j.m), j.id)
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
-- holder gives the job if the lease is current; else nil, why, job.
local function holder(j, li)
  if j and j.st == 'leased' and j.li == li then return j end
  if j and j.st == 'cancelled' and j.li == li then return nil, 'cancelled', j end
  return nil, 'lost', j
end
local function again(j, li, verb)
  local p = li .. ':' .. verb .. ':'
  if j and string.sub(j.fi, 1, #p) == p then return string.sub(j.fi, #p + 1) end
end
-- enqueue stores one line of a batch. r: id, req, head (class … line) and tail (private …) of m, cl, po, ba, ln, us.
local function enqueue(r)
  K.seq = K.seq + 1
  count('seq', 0)
  local id, sq, k, m = r.id, string.format('%d', K.seq), P .. 'j:' .. r.id, r.head .. r.tail
  local j = {id=id, k=k, w={}, st='queued', m=m, sq=sq, hd='', at=0, li='', ev=0, cl=r.cl, po=r.po, ba=r.ba, ln=r.ln, tail=r.tail, us=r.us}
  JOBS[id] = j
  call('HSET', k, 'r', r.req, 'm', m, 'st', 'queued', 'sq', sq, 'sb', stamp(), 'ev', '0')
  call('ZADD', P .. 'xb:' .. r.ba, sq, id)
  call('ZADD', P .. 'rev', '0', string.reverse(id))
  local x = U(r.us)
  if x.qd == 0 and x.rn == 0 then call('PERSIST', x.k) end
  place(j)
end
`
