package redisq_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
)

// BenchmarkScripts prints what the scripts of a job's way cost the server, and
// asynq's enqueue as the yardstick: time of a call by INFO commandstats, which
// leaves out the network and the clients, and the commands that it makes.
//
//	go test ./queue/redisq -run '^$' -bench Scripts -benchtime 1x
func BenchmarkScripts(b *testing.B) {
	for range b.N {
		r := queuetest.StartRedis(b)
		s := spent{b: b, rc: redis.NewClient(&redis.Options{Addr: r.Addr}), usec: map[string][]float64{}, commands: map[string]float64{}}
		for range rounds {
			scripts(b, r, &s)
		}
		fmt.Printf("\n| script | µs a call (medians) | commands a call |\n|---|---:|---:|\n")
		for _, name := range s.names {
			fmt.Printf("| %s | %.1f | %.1f |\n", name, median(s.usec[name]), s.commands[name])
		}
		s.rc.Close()
		r.Kill()
	}
}

// scripts sends 5,000 jobs of ten users through ten workers, ten at a time.
func scripts(b *testing.B, r *queuetest.Redis, s *spent) {
	const n = 5000
	ctx := b.Context()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	must(s.rc.FlushDB(ctx).Err())
	q := openBench(b, r, "scripts")
	defer q.Close()
	ac := asynq.NewClient(asynq.RedisClientOpt{Addr: r.Addr})
	defer ac.Close()
	s.of("asynq's enqueue", func() {
		for range n {
			_, err := ac.Enqueue(asynq.NewTask("noop", []byte(strings.Repeat("x", 300))))
			must(err)
		}
	})
	s.of("submit", func() {
		for i := range n {
			_, err := q.Submit(ctx, queuetest.Request(strconv.Itoa(i%10), "a ceramic coffee mug"))
			must(err)
		}
	})
	var ls [10]*queue.Lease
	for range n / len(ls) {
		s.of("lease", func() {
			for i := range ls {
				var err error
				ls[i], err = q.Lease(ctx, queuetest.Caps(fmt.Sprint("w", i)))
				must(err)
			}
		})
		s.of("complete", func() {
			for _, l := range ls {
				must(q.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID, Used: 1}))
			}
		})
	}
}

// spent sums up what scripts cost.
type spent struct {
	b        *testing.B
	rc       *redis.Client
	names    []string
	usec     map[string][]float64 // by name, one for each call of of
	commands map[string]float64
}

// of books what the scripts that f calls cost on average.
func (s *spent) of(name string, f func()) {
	if err := s.rc.ConfigResetStat(s.b.Context()).Err(); err != nil {
		s.b.Fatal(err)
	}
	f()
	info, err := s.rc.Info(s.b.Context(), "commandstats").Result()
	if err != nil {
		s.b.Fatal(err)
	}
	var scripts, usec, commands float64
	for line := range strings.Lines(info) {
		var n, t float64
		what, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
		if _, err := fmt.Sscanf(rest, "calls=%f,usec=%f", &n, &t); err != nil {
			continue
		}
		switch what {
		case "evalsha":
			scripts, usec = n, t
		case "info", "config|resetstat", "hello", "client|setinfo", "client|setname":
		default:
			commands += n
		}
	}
	if s.usec[name] == nil {
		s.names = append(s.names, name)
	}
	s.usec[name] = append(s.usec[name], usec/scripts)
	s.commands[name] = commands / scripts
}
