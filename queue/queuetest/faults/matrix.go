package main

// row is a row of the fault matrix, and the tests that show it.
type row struct {
	number, fault string
	parts         []part
}

// part is a package and a pattern of the names of its tests.
type part struct{ dir, test string }

func (p part) String() string { return p.dir + " " + p.test }

const (
	redisq = "queue/redisq"
	worker = "inference/worker"
	ingest = "queue/ingest"
)

var matrix = []row{
	{"1", "worker killed at each step from lease to completion", []part{{redisq, "TestRow1KilledWorker"}, {worker, "TestKilledAtEachPoint|TestKilledTogether"}, {"bots/delivery", "TestRestartBetweenSteps"}}},
	{"2", "worker stopped for several leases, then continued", []part{{redisq, "TestRow2StoppedWorker"}, {worker, "TestStoppedWorkerHasNoEffect"}}},
	{"3", "a step hangs in a call that ignores its context", []part{{worker, "TestStuckStep"}}},
	{"4", "Redis killed twice under load, AOF always", []part{{redisq, "TestRow4KilledRedis"}, {worker, "TestFaultsOnRedisAndS3"}}},
	{"5", "the same with everysec and syncs that take 700 ms longer", []part{{redisq, "TestRow5SlowDisk"}}},
	{"6", "script cache emptied every 2 ms", []part{{redisq, "TestRow6ScriptFlush"}}},
	{"7", "Sentinel failover; with a replica that is behind", []part{{redisq, "TestRow7Failover"}, {redisq, "TestRow7ReplicaBehind"}}},
	{"8", "bytes held and delivered late; the network cut both ways and one way", []part{{redisq, "TestRow8HeldBytes"}, {redisq, "TestRow8NetworkNamespace"}}},
	{"9", "slow Redis, resets in mid-answer", []part{{redisq, "TestRow9SlowRedis"}}},
	{"10", "the answer lost after the write, for 15 scripts", []part{{redisq, "TestRow10LostAnswers"}}},
	{"11", "the server's clock, then the worker's, an hour off", []part{{redisq, "TestRow11WrongClock"}, {redisq, "TestRow11WorkerClock"}, {worker, "TestWorkerClock"}}},
	{"12", "Redis' clock jumps by a minute, four times", []part{{redisq, "TestRow12ClockJumps"}}},
	{"13", "S3 fails in eight ways", []part{{"storage/s3", "TestBurstsAreRetried|TestKindsOfFailure|TestCutBody|TestSlowServerEndsWithTheContext|TestLostAnswerOfTheManifest"}, {worker, "TestS3FailsWhilePublishing"}}},
	{"14", "full disk: Redis, SQLite, directory, checkpoints", []part{{redisq, "TestRow14FullDisk"}, {"queue/sqliteq", "TestRow14FullDisk"}, {"storage/dir", "TestFullDisk"}, {worker, "TestFullStorageStopsLeasing"}}},
	{"15", "chat events twice, late, out of order; two bots", []part{{"bots/slack", "TestRedelivery|TestTwoProcesses|TestReplay"}, {"bots/discord", "TestTwoBotsOnOneToken"}, {"bots/delivery", "TestTwoReplicas"}}},
	{"16", "cancel at random moments, and at each phase", []part{{redisq, "TestRow16Cancel"}, {worker, "TestCancelAtEachPhase|TestCancelAfterCompletion"}}},
	{"17", "input that kills the worker process", []part{{redisq, "TestRow17Poison"}, {redisq, "TestRow17PoisonWaits"}, {worker, "TestPoisonIsQuarantined|TestPoisonTogether"}}},
	{"18", "a flood of lines, then a chat job", []part{{ingest, "TestFlood"}}},
	{"19", "malformed files", []part{{ingest, "TestFormats|TestBoundedMemory"}}},
	{"20", "workers drained in turn under load", []part{{redisq, "TestRow20Drain"}, {worker, "TestRollingDrain"}}},
	{"21", "switches across restarts of Redis", []part{{redisq, "TestRow21PauseRestart"}}},
	{"22", "bulk yields to chat", []part{{redisq, "TestRow22Yield"}, {worker, "TestBulkYields"}}},
	{"23", "another schema on the same Redis", []part{{redisq, "TestRow23OtherSchema"}}},
}
