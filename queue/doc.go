// Package queue is the contract between everything that asks for work (chat,
// web console, prompt files) and everything that does it (workers).
//
// A [Request] becomes a [Job]. A worker leases the job, reports progress with
// heartbeats, and ends it. Each change that people must hear of appends one
// [Event] to the outbox in the same atomic step, so that what was acknowledged
// and what is told never differ. Two backends fulfil the contract: redisq
// (Redis, Lua scripts) for service, sqliteq (one file) when embedded; both pass
// the suite in queuetest.
//
// # States
//
//	queued ──lease──> leased ──complete──> done
//	  ^  ^              │ ├──────fail────> failed        (attempts used up, or bad input)
//	  │  │              │ └──crash × 3───> quarantined   (poison)
//	  │  └─ give back, ─┘
//	  │     lost lease (head of the user's line)
//	  └── scheduled <── fail (backoff)
//	any of queued, scheduled, leased ──cancel──> cancelled
//	failed, cancelled, quarantined ──requeue──> queued
//
// "Paused" is not a state: switches on the queue, a class, a user or a batch
// keep queued jobs from being leased, and last through restarts.
//
// # Invariants
//
//  1. A job is in exactly one place: a line, scheduled, leases, or a terminal set.
//  2. A leased job has exactly one lease entry, and the reverse.
//  3. A user is in a class's order if and only if their line is not empty.
//  4. A known idempotency key returns the first job, whatever its state, until
//     the key's life ends.
//  5. Completion is accepted once, and only from the holder of the current lease.
//  6. One outcome event per job and round, written with the change of state.
//     Jobs of a batch write a bit in the batch's record instead, and the batch
//     writes one event when it ends.
//  7. Counters equal what they count.
//
// [Auditor] checks them on a live server.
//
// # Rules that hold for every method
//
// Time is the server's: a caller's clock decides nothing. Every method may be
// repeated with the same arguments after a lost answer, and then answers like
// the first time. Errors are [*Error] with a [Code]; anything the backend could
// not do because it cannot reach its server has [CodeUnavailable] and nothing
// may be concluded from it.
package queue
