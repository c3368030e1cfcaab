package queuetest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// StartCluster starts a Redis Cluster of three masters and returns their addresses.
func StartCluster(t testing.TB) []string {
	t.Helper()
	var addrs []string
	for range 3 {
		// The bus port must be free too, so it is chosen, not derived.
		r := StartRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-port", fmt.Sprint(FreePort(t)))
		addrs = append(addrs, r.Addr)
	}
	out, err := exec.Command("redis-cli", append([]string{"--cluster", "create"}, append(addrs, "--cluster-yes")...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("create cluster: %v\n%s", err, out)
	}
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		good := 0
		for _, a := range addrs {
			h, p, _ := net.SplitHostPort(a)
			out, _ := exec.Command("redis-cli", "-h", h, "-p", p, "cluster", "info").Output()
			if strings.Contains(string(out), "cluster_state:ok") {
				good++
			}
		}
		if good == len(addrs) {
			return addrs
		}
		if time.Now().After(end) {
			t.Fatal("the cluster does not come up")
		}
	}
}

// Failover is a primary, a replica and three Sentinels that watch them.
type Failover struct {
	Primary, Replica *Redis
	Sentinels        []*Redis
	Addrs            []string // of the Sentinels
}

// FollowThrough lets the replica follow the primary through a proxy, which can
// keep it behind. Sentinel ends that after about eight seconds.
func (f *Failover) FollowThrough(p *Proxy) {
	f.Replica.t.Helper()
	h, port, _ := net.SplitHostPort(p.Addr)
	if err := f.Replica.Client().Do(f.Replica.t.Context(), "REPLICAOF", h, port).Err(); err != nil {
		f.Replica.t.Fatal(err)
	}
	waitInfo(f.Replica.t, f.Replica, "master_port:"+port)
	waitInfo(f.Replica.t, f.Replica, "master_link_status:up")
}

// StartFailover starts them; the master's name is "mymaster".
func StartFailover(t testing.TB, downAfter time.Duration) *Failover {
	t.Helper()
	f := &Failover{Primary: StartRedis(t, "--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")}
	h, p, _ := net.SplitHostPort(f.Primary.Addr)
	f.Replica = StartRedis(t, "--replicaof", h+" "+p, "--repl-diskless-sync-delay", "0")
	waitInfo(t, f.Replica, "master_link_status:up")
	for range 3 {
		s := &Redis{t: t, Dir: t.TempDir(), args: []string{"--sentinel"}, Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t))}
		_, sp, _ := net.SplitHostPort(s.Addr)
		conf := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor mymaster %s %s 2\nsentinel down-after-milliseconds mymaster %d\nsentinel failover-timeout mymaster 10000\nsentinel parallel-syncs mymaster 1\n",
			sp, s.Dir, h, p, downAfter.Milliseconds())
		if err := os.WriteFile(filepath.Join(s.Dir, "sentinel.conf"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Kill)
		f.Sentinels, f.Addrs = append(f.Sentinels, s), append(f.Addrs, s.Addr)
	}
	for _, s := range f.Sentinels {
		waitInfo(t, s, "sentinels=3")
		waitInfo(t, s, "slaves=1")
	}
	return f
}

// waitInfo waits until the server's INFO contains the text.
func waitInfo(t testing.TB, r *Redis, text string) {
	t.Helper()
	c := r.Client()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		s, err := c.Info(t.Context()).Result()
		if err == nil && strings.Contains(s, text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waiting for %q: %v\n%s", text, err, s)
		}
	}
}
