package redisq

// prelude are the functions that the scripts share. Before a script is loaded
// `P .. '` becomes the key prefix with the hash tag, `C.x` a number of the
// configuration, `S.x` a sentence and `@x` a record of record.go (see
// [Queue.source]): a table would have to be made at each call. A test may define
// `shift` to move the clock.
//
// Keys, all under one hash tag so that Cluster keeps them in one slot:
//
//	j:<id>          string  a job (records state and fixed)
//	jr:, je:<id>    string  its request and its result, as JSON
//	jh:<id>         hash    what only some jobs have (fields in job.go)
//	k               string  numbers of the whole queue (records head and total)
//	u:<user>        string  a user's place in the order (record user)
//	l:<cl>:<po>:<u> list    a user's line: jobs by sequence number
//	v:<cl>:<po>     zset    the order: users with a line, by virtual time in ns
//	vp:<cl>:<po>    zset    the same for users who are held out (paused, at their running limit)
//	wt:<cl>         zset    lines (<po>:<u>), by a time before which none of their jobs waits (see oldest)
//	held            zset    queued jobs of paused batches
//	leases          hash    lease id → lease (record lease)
//	scan            string  how far the rescuer has looked through leases
//	later           zset    scheduled jobs by time
//	t:<status>      zset    terminal jobs by end; t:failed … are the dead letters
//	x:<user>        list    jobs of a user (without batches) as they came
//	xb:<batch>      list    jobs of a batch; tb:<batch>:<status> list of its kept terminal ones
//	w:<po>          zset    wake marker of a pool: there while the pool has lines, or with a worker that has just taken it
//	i:<key>         string  idempotency key → job
//	poison          hash    fingerprint → job
//	d:<sort>        list    sampled run times; est hash: their median and how many there were
//	c               hash    counters of what is rare
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
local STATUS = {'queued', 'scheduled', 'leased', 'done', 'failed', 'cancelled', 'quarantined'}
local function now()
  if not T then
    local t = call('TIME')
    T = t[1] * 1000 + math.floor(t[2] / 1000) + (shift and shift() or 0)
  end
  return T
end
-- int is a whole number as text: Redis turns numbers into text slowly.
local function int(n) return string.format('%d', n) end
local function stamp() return int(now()) end
-- Records are read once, changed in memory and written back by flush.
-- A script marks one that it has changed with new = true.
local TOTAL
local function total()
  if not TOTAL then
    local @head, @total = struct.unpack('@head.f@total.f', call('GET', P .. 'k') or @head.z .. @total.z)
    TOTAL = {@head.t, @total.t}
  end
  return TOTAL
end
-- pools goes through the pools that have lines.
local function pools() return string.gmatch(total().pools, '[^\n]+') end
local function addPool(po)
  local x = total()
  if not string.find(x.pools, '\n' .. po .. '\n', 1, true) then x.pools, x.new = x.pools .. po .. '\n', true end
end
local function dropPool(po)
  local x = total()
  local from, to = string.find(x.pools, '\n' .. po .. '\n', 1, true)
  if from then x.pools, x.new = string.sub(x.pools, 1, from) .. string.sub(x.pools, to + 1), true end
end
-- count adds to a number of the whole queue, or else to a counter.
local function count(name, n)
  local x = total()
  if x[name] then
    x[name] = x[name] + (n or 1)
    x.new = true
  else SUMS[name] = (SUMS[name] or 0) + (n or 1) end
end
-- load reads a job.
local function load(id)
  local j = JOBS[id]
  if j then return j end
  local k = P .. 'j:' .. id
  local v = call('GET', k)
  if not v then return nil end
  local @state, pos = struct.unpack('@state.f', v)
  local @fixed = struct.unpack('@fixed.f', v, pos)
  local h = call('HMGET', P .. 'jh:' .. id, 'fi', 'yi', 'fa', 'cr', 'di', 'cw', 'pg')
  j = {id=id, k=k, w={}, @state.t, @fixed.t, m=string.sub(v, pos), fi=h[1] or '', yi=tonumber(h[2] or '') or 0,
    fa=tonumber(h[3] or '') or 0, cr=tonumber(h[4] or '') or 0, di=tonumber(h[5] or '') or 0, cw=h[6] or '', pg=h[7] or ''}
  j.st = STATUS[st]
  j.wk, j.wn = string.match(wo .. '\n', '^([^\n]*)\n(.-)\n$')
  JOBS[id] = j
  return j
end
-- set writes a rare field of a job.
local function set(j, f, v)
  local w = j.w
  w[#w+1] = f
  w[#w+1] = v
end
local function packed(x)
  local name = x.st
  for i = 1, #STATUS do if STATUS[i] == name then x.st = i end end
  local s = struct.pack('@state.f', @state.x) .. x.m
  x.st = name
  return s
end
local function U(u)
  local x = USERS[u]
  if x then return x end
  local k = P .. 'u:' .. u
  local @user = struct.unpack('@user.f', call('GET', k) or @user.z)
  x = {k=k, @user.t}
  USERS[u] = x
  return x
end
local function weight(x) return x.w > 0 and x.w or 1 end
-- flush writes the records that have changed. A user without jobs, weight and
-- pause is forgotten after 90 days.
local function flush()
  for _, j in pairs(JOBS) do
    if j.new then
      call('SET', j.k, packed(j))
      j.new = nil
    end
    if j.w[1] then call('HSET', P .. 'jh:' .. j.id, unpack(j.w)); j.w = {} end
  end
  for _, x in pairs(USERS) do
    if x.new then
      local s = struct.pack('@user.f', @user.x)
      if x.qd <= 0 and x.rn <= 0 and x.pz == 0 and x.w == 0 then call('SET', x.k, s, 'EX', '7776000') else call('SET', x.k, s) end
      x.new = nil
    end
  end
  local x = TOTAL
  if x and x.new then
    call('SET', P .. 'k', struct.pack('@head.f@total.f', @head.x, @total.x))
    x.new = nil
  end
  for k, n in pairs(SUMS) do if n ~= 0 then call('HINCRBY', P .. 'c', k, n) end end
  SUMS = {}
end
local function switched(scope, name)
  return total().sw > 0 and call('HEXISTS', P .. 'sw', scope .. ':' .. (name or '')) == 1
end
-- size keeps the number of entries of the hash of switches or poison with the
-- totals, where the scripts of every job's way see it.
local function size(name)
  local x = total()
  x[name], x.new = call('HLEN', P .. '' .. name), true
end
-- ab is how a class's fields in the records end.
local function ab(cl) return cl == 'bulk' and 'b' or 'i' end

-- parked: the user is paused or at the limit of running jobs.
local function parked(x) return x.pz == 1 or (C.running > 0 and x.rn >= C.running) end
-- share sets a user's virtual time, in the order too. po: where a line is likely.
local function share(u, cl, vt, po)
  local x, c = U(u), ab(cl)
  x['vt' .. c], x['va' .. c], x.new = vt, now(), true
  if x['ln' .. c] <= 0 then return end
  local z = (parked(x) and P .. 'vp:' or P .. 'v:') .. cl .. ':'
  if po and x['ln' .. c] == 1 and call('ZADD', z .. po, 'XX', 'CH', int(vt), u) == 1 then return end
  for p in pools() do call('ZADD', z .. p, 'XX', int(vt), u) end
end
-- enter gives the virtual time at which a user joins a class: the own one,
-- its debt above the floor decayed, and at least the floor. Users who join at
-- the floor stand there in the order of their jobs, a nanosecond apart.
local function enter(u, cl, sq, force)
  local x, c = U(u), ab(cl)
  local vt, fl = x['vt' .. c], total()['fl' .. c]
  if vt >= 0 and not force and x['ln' .. c] > 0 then return vt end
  if vt < fl then vt = fl + sq % 1000000
  elseif C.halflife > 0 then vt = fl + math.floor((vt - fl) * 2 ^ (-math.max(now() - x['va' .. c], 0) / C.halflife)) end
  share(u, cl, vt)
  return vt
end
-- cost is what seconds on the card cost a user, in virtual time.
local function cost(x, sec) return math.floor(sec * 1e9 / weight(x) + 0.5) end
local function charge(u, cl, sec, po)
  if sec == 0 then return end
  local x = U(u)
  share(u, cl, math.max(x['vt' .. ab(cl)], 0) + cost(x, sec), po)
end
local function wake(po) call('ZADD', P .. 'w:' .. po, '0', '1') end
-- behind gives the first job in a line of n that came after sq, if any.
local function behind(l, n, sq)
  local lo, hi = 0, n
  while lo < hi do
    local mid = math.floor((lo + hi) / 2)
    local j = load(call('LINDEX', l, mid))
    if j and j.sq > sq then hi = mid else lo = mid + 1 end
  end
  return lo < n and call('LINDEX', l, lo)
end
local function lineAdd(j)
  local line, c = j.po .. ':' .. j.us, ab(j.cl)
  local l = P .. 'l:' .. j.cl .. ':' .. line
  local n = call('LLEN', l)
  local next = n > 0 and j.sq < total().seq and behind(l, n, j.sq)
  if next then call('LINSERT', l, 'BEFORE', next, j.id) else call('RPUSH', l, j.id) end
  count('in' .. c)
  j.qs, j.new = now(), true
  if n > 0 then return end
  addPool(j.po)
  call('ZADD', P .. 'wt:' .. j.cl, stamp(), line)
  local x, vt = U(j.us), enter(j.us, j.cl, j.sq)
  call('ZADD', (parked(x) and P .. 'vp:' or P .. 'v:') .. j.cl .. ':' .. j.po, int(vt), j.us)
  x['ln' .. c], x.new = x['ln' .. c] + 1, true
  wake(j.po)
end
-- lineEnd takes a line that has become empty out of the order.
local function lineEnd(cl, po, us)
  local x, c = U(us), ab(cl)
  call('ZREM', P .. 'wt:' .. cl, po .. ':' .. us)
  call('ZREM', P .. 'v:' .. cl .. ':' .. po, us)
  call('ZREM', P .. 'vp:' .. cl .. ':' .. po, us)
  x['ln' .. c], x.new = x['ln' .. c] - 1, true
  if call('EXISTS', P .. 'v:interactive:' .. po, P .. 'vp:interactive:' .. po, P .. 'v:bulk:' .. po, P .. 'vp:bulk:' .. po) == 0 then
    dropPool(po)
  end
end
local function lineRemove(j)
  local l = P .. 'l:' .. j.cl .. ':' .. j.po .. ':' .. j.us
  if call('LREM', l, 1, j.id) == 1 then count('in' .. ab(j.cl), -1) end
  if call('EXISTS', l) == 0 then lineEnd(j.cl, j.po, j.us) end
end
-- mend puts right what a line held that had no job (somebody deleted its key).
local function mend(cl, po, us, n)
  count('in' .. ab(cl), -n)
  if call('EXISTS', P .. 'l:' .. cl .. ':' .. po .. ':' .. us) == 0 then lineEnd(cl, po, us) end
end
-- earlier tells whether the head of user a's line in pool p is before b's in q.
local function earlier(cl, a, p, b, q)
  if a ~= b then return tonumber(call('ZSCORE', P .. 'v:' .. cl .. ':' .. p, a)) < tonumber(call('ZSCORE', P .. 'v:' .. cl .. ':' .. q, b)) end
  local i, j = load(call('LINDEX', P .. 'l:' .. cl .. ':' .. p .. ':' .. a, 0) or ''), load(call('LINDEX', P .. 'l:' .. cl .. ':' .. q .. ':' .. b, 0) or '')
  return i and j and i.sq < j.sq
end
-- since gives the time since which the longest waiting job of a line waits.
-- Those who never left the line stand in the order of their times, so it is
-- among those up to the first of them.
local function since(l)
  local old
  for _, id in ipairs(call('LRANGE', l, 0, 99)) do
    local j = load(id)
    if j then
      old = math.min(old or j.qs, j.qs)
      if old <= j.sb then break end
    end
  end
  return old
end
-- oldest gives the time since which the longest waiting job of a class waits.
-- The times in wt are too early for lines whose head has gone; they are put
-- right here, where somebody asks.
local function oldest(cl)
  local z = P .. 'wt:' .. cl
  for _ = 1, 2000 do
    local v = call('ZRANGE', z, 0, 0, 'WITHSCORES')
    if not v[1] then return nil end
    local old = since(P .. 'l:' .. cl .. ':' .. v[1])
    if not old then call('ZREM', z, v[1])
    elseif old <= tonumber(v[2]) then return old
    else call('ZADD', z, int(old), v[1]) end
  end
end
-- reseat moves a user's lines into or out of the order.
local function reseat(u)
  local x = U(u)
  local out = parked(x)
  for _, cl in ipairs(CLASSES) do
    local moved = false
    for po in pools() do
      local from, to = P .. 'v:' .. cl .. ':' .. po, P .. 'vp:' .. cl .. ':' .. po
      if not out then from, to = to, from end
      if call('ZREM', from, u) == 1 then
        moved = true
        call('ZADD', to, int(math.max(x['vt' .. ab(cl)], 0)), u)
        wake(po)
      end
    end
    if moved and not out then enter(u, cl, 0, true) end -- who comes back has no credit from absence
  end
end
local function runs(u, n)
  local x = U(u)
  x.rn, x.new = x.rn + n, true
  if C.running > 0 then reseat(u) end
end
local function waits(j, n)
  if j.ba == '' then
    local x = U(j.us)
    x.qd, x.new = x.qd + n, true
    count('waiting', n)
  end
end
-- event appends to the outbox; jobs of batches write none.
local function event(j, kind, data)
  if j.ba ~= '' then return end
  j.ev, j.new = j.ev + 1, true
  call('XADD', P .. 'ev', '*', 'e', string.format('%s\n%s\n%d\n%s\n%d\n%s\n', kind, j.id, j.at, j.li, j.ev, stamp()) .. j.tail .. '\n' .. (data or ''))
end
-- place puts a queued job where it waits.
local function place(j)
  if j.ba ~= '' and call('HGET', P .. 'b:' .. j.ba, 'st') == 'paused' then
    j.hd, j.new = 1, true
    call('ZADD', P .. 'held', int(j.sq), j.id)
  else
    lineAdd(j)
  end
  waits(j, 1)
end
local function toLine(j)
  j.st, j.new = 'queued', true
  place(j)
end
local function fromLine(j)
  if j.hd == 1 then
    call('ZREM', P .. 'held', j.id)
    j.hd, j.new = 0, true
  else
    lineRemove(j)
  end
  waits(j, -1)
end
local function unlease(j, used)
  if used <= 0 then used = (now() - j.sa) / 1000 end
  charge(j.us, j.cl, used - j.ch, j.po)
  j.ud, j.ch, j.new = j.ud + used, 0, true
  call('HDEL', P .. 'leases', j.li)
  if j.as == 1 then call('ZREM', P .. 'asked', j.id) end
  runs(j.us, -1)
end
-- refund gives back of reserved quotas all, or what counts live jobs; it returns the rest.
local function refund(qt, all)
  local kept = ''
  for live, cost, key in string.gmatch(qt, '(%*?)(%d+) ([^\n]+)\n') do
    local k = P .. 'n:quota/' .. key
    if live == '' and not all then kept = kept .. cost .. ' ' .. key .. '\n'
    elseif call('EXISTS', k) == 1 and call('DECRBY', k, cost) < 0 then call('SET', k, 0, 'KEEPTTL') end
  end
  return kept
end
-- sample takes a run time as one of those from which the next are estimated.
local function sample(so, sec)
  local d = P .. 'd:' .. so
  if call('LPUSH', d, sec) > 2 * C.samples then call('LTRIM', d, 0, C.samples - 1) end
  local s = call('LRANGE', d, 0, C.samples - 1)
  for i = 1, #s do s[i] = tonumber(s[i]) end
  table.sort(s)
  call('HSET', P .. 'est', so, struct.pack('<ddd', s[math.min(math.floor(#s / 2) + 1, #s)], #s, now()))
end
-- estimate gives what a job of a sort takes.
local function estimate(so, po)
  local v = call('HGET', P .. 'est', so)
  return v and struct.unpack('<d', v) or string.sub(po, -6) == '/views' and C.estviews or C.estmesh
end
-- drop deletes a terminal job and its index entries.
local function drop(id)
  local j = load(id)
  if not j then return end
  call('ZREM', P .. 't:' .. j.st, id)
  call('LREM', j.ba ~= '' and P .. 'xb:' .. j.ba or P .. 'x:' .. j.us, 1, id)
  call('DEL', j.k, P .. 'jr:' .. id, P .. 'je:' .. id, P .. 'jh:' .. id)
  JOBS[id] = nil
end
local function batchEvent(id, st)
  local k = P .. 'b:' .. id
  local b = call('HMGET', k, 'nm', 'dn', 'fd', 'cn', 'own', 'or', 'pv')
  call('HSET', k, 'st', st, 'en', stamp())
  if call('HDEL', P .. 'sw', 'batch:' .. id) == 1 then size('sw') end
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
  j.st, j.en, j.new = st, now(), true
  call('ZADD', P .. 't:' .. st, stamp(), j.id)
  count(st)
  if st == 'failed' and fk == 'input' then count('failed_input') end
  if j.qt ~= '' then j.qt = refund(j.qt, (st == 'failed' and fk ~= 'input') or st == 'quarantined' or (st == 'cancelled' and j.at == 0)) end
  if j.ba ~= '' then batchEnd(j, st, reason or '') else event(j, kind, data) end
end
local function cancel(j)
  if j.st == 'queued' then fromLine(j)
  elseif j.st == 'scheduled' then call('ZREM', P .. 'later', j.id); waits(j, -1)
  elseif j.st == 'leased' then unlease(j, 0) end
  finish(j, 'cancelled', 'cancelled')
end
local function later(j, ms)
  j.st, j.du, j.new = 'scheduled', now() + ms, true
  call('ZADD', P .. 'later', int(j.du), j.id)
  waits(j, 1)
end
local function backoff(n, rnd)
  local d = C.base
  for i = 2, n do if d < C.max then d = d * 2 end end
  return math.floor(math.min(d, C.max) * rnd) + 1
end
-- failed moves a job on whose attempt ended badly. f: kind, worker, exit, used,
-- after (ms, 0: backoff), rnd, json, data (event), reason.
local function failed(j, f)
  set(j, 'fl', f.json)
  unlease(j, f.used)
  if f.kind == 'crash' or f.kind == 'stuck' or f.kind == 'died' then
    j.cr = j.cr + 1
    count('crashes')
    j.di = f.kind == 'died' and j.di + 1 or 0
    -- a line as in package crash
    local by = string.gsub(string.sub(f.worker, 1, 100), '[\t\n]', ' ')
    j.cw = j.cw .. '\n' .. by .. '\t' .. (f.exit or '') .. '\t' .. f.kind .. '\t' .. int(j.at) .. '\t' .. stamp() .. '\n'
    set(j, 'cr', j.cr)
    set(j, 'di', j.di)
    set(j, 'cw', j.cw)
    local seen, n = {}, 0
    for w in string.gmatch(j.cw, '\n([^\t\n]+)') do
      if not seen[w] then seen[w], n = true, n + 1 end
    end
    if j.di >= 2 or (j.cr >= C.crashes and n >= 2) or j.cr >= 2 * C.crashes then
      call('HSET', P .. 'poison', j.fp, j.id)
      size('poison')
      finish(j, 'quarantined', 'failed', S.quarantined, f.kind, S.quarantinedText)
      return
    end
    if j.cr == 1 then toLine(j) else later(j, backoff(j.cr - 1, f.rnd)) end
    event(j, 'waiting')
    return
  end
  if f.kind ~= 'input' then
    j.fa = j.fa + 1
    set(j, 'fa', j.fa)
    if j.fa < C.failures then
      later(j, f.after > 0 and f.after or backoff(j.fa, f.rnd))
      event(j, 'waiting')
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
-- enqueue stores one line of a batch.
local function enqueue(id, req, m)
  count('seq')
  local @state = struct.unpack('@state.f', @state.z)
  local @fixed = struct.unpack('@fixed.f', m)
  local j = {id=id, k=P .. 'j:' .. id, w={}, @state.t, @fixed.t, m=m}
  j.st, j.sq, j.sb, j.qs, j.new = 'queued', total().seq, now(), now(), true
  JOBS[id] = j
  call('SET', P .. 'jr:' .. id, req)
  call('RPUSH', P .. 'xb:' .. j.ba, id)
  place(j)
end
`
