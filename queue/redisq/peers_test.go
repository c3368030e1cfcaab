package redisq_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"dreamcad/queue"
	"dreamcad/queue/queuetest"
)

// bull is a process of bullmq/bench.js.
type bull struct {
	b   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// installBull fetches BullMQ once, by the lock file.
var installBull = sync.OnceValue(func() error {
	if _, err := os.Stat("bullmq/node_modules"); err == nil {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	cmd.Dir = "bullmq"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install BullMQ (npm ci): %w\n%s", err, out)
	}
	return nil
})

// startBull starts BullMQ's side; nil where there is no Node.
func startBull(b testing.TB, r *queuetest.Redis) *bull {
	if _, err := exec.LookPath("node"); err != nil {
		fmt.Println("no node in the PATH: BullMQ is left out")
		return nil
	}
	if err := installBull(); err != nil {
		b.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(r.Addr)
	p := &bull{b: b, cmd: exec.Command("node", "bullmq/bench.js", host, port)}
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	b.Cleanup(p.kill)
	return p
}

func (p *bull) kill() {
	_ = p.cmd.Process.Kill() // already gone is fine
	_ = p.cmd.Wait()         // how it ended does not matter
}

// ask sends a command and returns the numbers of the answer.
func (p *bull) ask(name string, args ...int) []float64 {
	for _, n := range args {
		name += fmt.Sprint(" ", n)
	}
	if _, err := fmt.Fprintln(p.in, name); err != nil {
		p.b.Fatal(err)
	}
	if !p.out.Scan() {
		p.b.Fatalf("BullMQ ended at %q", name)
	}
	var one float64
	if json.Unmarshal(p.out.Bytes(), &one) == nil {
		return []float64{one}
	}
	var all []float64
	if err := json.Unmarshal(p.out.Bytes(), &all); err != nil || len(all) == 0 {
		p.b.Fatalf("BullMQ answered %q with %q", name, p.out.Bytes())
	}
	return all
}

// BenchmarkKilled prints how long after kill -9 of its worker a job runs again:
// here and in BullMQ with leases (locks) of 1.5 s, in asynq with its own fixed
// 30 s, once.
//
//	go test ./queue/redisq -run '^$' -bench Killed -benchtime 1x
func BenchmarkKilled(b *testing.B) {
	for range b.N {
		r := queuetest.StartRedis(b)
		ours, bulls := make([]float64, rounds), make([]float64, rounds)
		for i := range rounds {
			ours[i] = killedOurs(b, r).Seconds()
			bulls[i] = killedBull(b, r).Seconds()
		}
		fmt.Printf("\n| kill -9 to restart, seconds: median, longest of %d | %.2f, %.2f |\n", rounds, median(ours), quantile(ours, 1))
		fmt.Printf("| … BullMQ | %.2f, %.2f |\n", median(bulls), quantile(bulls, 1))
		fmt.Printf("| … asynq, once | %.1f |\n", killedAsynq(b, r).Seconds())
		r.Kill()
	}
}

func killedOurs(b *testing.B, r *queuetest.Redis) time.Duration {
	url := fmt.Sprintf("redis://%s?prefix=k%d", r.Addr, subjects.Add(1))
	q, err := openFault(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = queue.RunMaintenance(ctx, q, faultConfig().TickEvery, faultConfigLog()) })
	defer func() {
		stop()
		wg.Wait()
		_ = q.Close()
	}()
	if _, err := q.Submit(ctx, queuetest.Request("a", "thing")); err != nil {
		b.Fatal(err)
	}
	victim := queuetest.StartWorker(b, url, "victim", 1000, 100*time.Millisecond, "")
	until(b, "the first start", func() bool { return len(victim.Log("leased")) > 0 })
	victim.Signal(syscall.SIGKILL)
	died := time.Now()
	c := queuetest.Caps("rescuer")
	c.Wait = time.Minute
	if _, err := q.Lease(ctx, c); err != nil {
		b.Fatal(err)
	}
	return time.Since(died)
}

func killedBull(b *testing.B, r *queuetest.Redis) time.Duration {
	if err := r.Client().FlushDB(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	victim, rescuer := startBull(b, r), startBull(b, r)
	if victim == nil {
		return 0
	}
	lock := int(faultConfig().Lease.Milliseconds())
	rescuer.ask("enqueue", 1)
	victim.ask("hold", lock)
	victim.kill()
	died := time.Now()
	defer rescuer.kill()
	return time.UnixMilli(int64(rescuer.ask("rescue", lock)[0])).Sub(died)
}

const asynqEnv = "DREAM_TEST_ASYNQ"

// asynqMain is a worker of asynq that never ends its job, if this process is to be one.
func asynqMain() {
	addr := os.Getenv(asynqEnv)
	if addr == "" {
		return
	}
	runAsynq(addr, func() {
		fmt.Println("leased")
		select {}
	})
	select {}
}

func runAsynq(addr string, f func()) *asynq.Server {
	s := asynq.NewServer(asynq.RedisClientOpt{Addr: addr}, asynq.Config{Concurrency: 1, Logger: quiet{}, LogLevel: asynq.FatalLevel,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return 0 }})
	if err := s.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { f(); return nil })); err != nil {
		panic(err)
	}
	return s
}

func killedAsynq(b *testing.B, r *queuetest.Redis) time.Duration {
	c := asynq.NewClient(asynq.RedisClientOpt{Addr: r.Addr})
	defer c.Close()
	if _, err := c.Enqueue(asynq.NewTask("noop", nil)); err != nil {
		b.Fatal(err)
	}
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), asynqEnv+"="+r.Addr)
	out, err := victim.StdoutPipe()
	if err == nil {
		err = victim.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	leased := bufio.NewScanner(out).Scan()
	_ = victim.Process.Kill() // it cannot have ended
	_ = victim.Wait()         // killed
	if !leased {
		b.Fatal("asynq's worker took no job")
	}
	died, again := time.Now(), make(chan time.Time, 1)
	s := runAsynq(r.Addr, func() { again <- time.Now() })
	defer s.Shutdown()
	return (<-again).Sub(died)
}
