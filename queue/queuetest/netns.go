package queuetest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Netns is a network namespace whose one cable leads to this machine.
type Netns struct {
	Near, Far string // addresses: of this machine on the cable, and in the namespace
	t         testing.TB
	name      string
	cable     string // its end here; the other is called "eth0"
}

// NewNetns makes a namespace, or skips the test where that is not permitted.
func NewNetns(t testing.TB) *Netns {
	t.Helper()
	id := os.Getpid()
	n := &Netns{t: t, name: fmt.Sprintf("dream%d", id), cable: fmt.Sprintf("dream%d", id),
		Near: fmt.Sprintf("10.231.%d.%d", id>>6&255, id<<2&255|1), Far: fmt.Sprintf("10.231.%d.%d", id>>6&255, id<<2&255|2)}
	if out, err := exec.Command("ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		t.Skipf("no network namespace to be had here: it needs root and iproute2: %v %s", err, out)
	}
	t.Cleanup(func() { n.ip("netns", "del", n.name) })
	n.ip("link", "add", n.cable, "type", "veth", "peer", "name", "eth0", "netns", n.name)
	n.ip("addr", "add", n.Near+"/30", "dev", n.cable)
	n.ip("link", "set", n.cable, "up")
	n.ip("-n", n.name, "addr", "add", n.Far+"/30", "dev", "eth0")
	n.ip("-n", n.name, "link", "set", "eth0", "up")
	n.ip("-n", n.name, "link", "set", "lo", "up")
	return n
}

// Command is what runs a program inside.
func (n *Netns) Command(program string) []string {
	return []string{"ip", "netns", "exec", n.name, program}
}

// nobody is a hardware address that no end of the cable has: what is sent there
// vanishes, and nobody is told.
const nobody = "02:00:00:00:00:99"

// LoseFromFar lets everything vanish that the namespace sends.
func (n *Netns) LoseFromFar() {
	n.ip("-n", n.name, "neigh", "replace", n.Near, "lladdr", nobody, "dev", "eth0", "nud", "permanent")
}

// LoseFromNear lets everything vanish that is sent into the namespace.
func (n *Netns) LoseFromNear() {
	n.ip("neigh", "replace", n.Far, "lladdr", nobody, "dev", n.cable, "nud", "permanent")
}

// Heal ends both.
func (n *Netns) Heal() {
	_ = exec.Command("ip", "-n", n.name, "neigh", "del", n.Near, "dev", "eth0").Run() // was not lost
	_ = exec.Command("ip", "neigh", "del", n.Far, "dev", n.cable).Run()               // was not lost
}

func (n *Netns) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
