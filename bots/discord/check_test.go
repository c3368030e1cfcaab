package discord

import (
	"strings"
	"testing"
)

// TestCheckChannel: what a channel's own permissions take away is named.
func TestCheckChannel(t *testing.T) {
	w := newWorld(t)
	last := func() (bool, string) {
		found := w.bot.Check(t.Context(), w.Ops)
		f := found[len(found)-1]
		return f.OK, f.Text
	}
	if ok, text := last(); !ok || !strings.Contains(text, "may see and write") {
		t.Errorf("a channel that is open: %v, %q", ok, text)
	}
	w.server.Deny(w.Ops, sendMessages|1<<15)
	if ok, text := last(); ok || !strings.Contains(text, "lacks: Send Messages, Attach Files.") {
		t.Errorf("a channel that forbids to write: %v, %q", ok, text)
	}
}

// TestOverwritten: everybody's role first, then the member's roles together, then the member.
func TestOverwritten(t *testing.T) {
	const all, self, role, other = "1", "7", "3", "4"
	mine := map[string]bool{all: true, role: true}
	for _, c := range []struct {
		name string
		have uint64
		list []overwrite
		want uint64
	}{
		{"nothing", 5, nil, 5},
		{"everybody denied", 5, []overwrite{{ID: all, Deny: "4"}}, 1},
		{"a role allows again, whatever the order", 5, []overwrite{{ID: role, Allow: "4"}, {ID: all, Deny: "4"}}, 5},
		{"of a stranger's role", 5, []overwrite{{ID: other, Deny: "4"}}, 5},
		{"the member goes last", 5, []overwrite{{ID: self, Type: 1, Deny: "1"}, {ID: role, Allow: "1"}}, 4},
		{"another member", 5, []overwrite{{ID: "8", Type: 1, Deny: "1"}}, 5},
	} {
		if got := overwritten(c.have, c.list, all, self, mine); got != c.want {
			t.Errorf("%s: %b, want %b", c.name, got, c.want)
		}
	}
}
