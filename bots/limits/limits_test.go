package limits

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "words")
	if err := os.WriteFile(path, []byte("# comment\nscrap\n[weapons]\npipe bomb\n/gre+nade/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for text, class := range map[string]string{
		"a heap of scrap":        "blocked words",
		"a sсrаp heap":           "blocked words", // Cyrillic с and а
		"SCRAP!":                 "blocked words",
		"s c r a p":              "blocked words",
		"s.c-r_a*p":              "blocked words",
		"ｓｃｒａｐ":                  "blocked words",
		"$cr4p":                  "blocked words",
		"scráp\u200b":            "blocked words",
		"a skyscraper":           "",
		"scraps":                 "",
		"a pipe-bomb":            "weapons",
		"a pipe, a bombe glacée": "",
		"a greeenade":            "weapons",
		"a ceramic coffee mug":   "",
	} {
		if got, _, hit := w.Match(text); got != class || hit != (class != "") {
			t.Errorf("Match(%q) = %q, %v; want %q", text, got, hit, class)
		}
	}
	if err := os.WriteFile(path, []byte("teapot\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Refresh(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, _, hit := w.Match("a teapot"); !hit {
		t.Error("the changed list is not in force")
	}
	if err := os.WriteFile(path, []byte("/(/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Refresh(time.Now().Add(2 * time.Hour)); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a broken list: %v", err)
	}
	if _, _, hit := w.Match("a teapot"); !hit {
		t.Error("a broken file ended the old list")
	}
}

func TestLimits(t *testing.T) {
	now := time.Date(2026, 11, 23, 23, 59, 0, 0, time.UTC)
	c := Config{UserDay: 5, SpaceDay: 100, TotalDay: 1000, Cooldown: 10 * time.Second, Admins: []string{"slack:U1", "role:77"}, Ingest: []string{"discord:9"}}
	got := c.Submit("discord:1", "g1", nil, now)
	want := []string{"cooldown/discord:1", "day/2026-11-23/user/discord:1", "day/2026-11-23/space/g1", "day/2026-11-23/total/"}
	if len(got) != len(want) {
		t.Fatalf("%d limits, want %d", len(got), len(want))
	}
	for i, l := range got {
		if l.Key != want[i] {
			t.Errorf("limit %d: key %q, want %q", i, l.Key, want[i])
		}
	}
	if until := got[1].Until; !until.Equal(now.Add(time.Minute)) {
		t.Errorf("the day ends at %v", until)
	}
	own, none := 2, Unlimited
	if l := c.Day("u", "", &own, now); l[0].Limit != 2 {
		t.Errorf("own limit: %+v", l)
	}
	if l := c.Day("u", "", &none, now); len(l) != 1 || l[0].Scope != Total {
		t.Errorf("unlimited user: %+v", l)
	}
	if !c.Admin("slack:U1", nil) || !c.Admin("discord:2", []string{"77"}) || c.Admin("discord:77", []string{"slack:U1"}) {
		t.Error("administrators")
	}
	if !c.MayIngest("discord:9", nil) || c.MayIngest("discord:8", nil) {
		t.Error("ingest list")
	}
}
