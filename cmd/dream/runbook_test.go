package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"dreamcad/ops/rules"
)

// Every rule has its section in the runbook, every section its rule, and every
// command that it names exists.
func TestRunbook(t *testing.T) {
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## ([a-z_]+)$`).FindAllStringSubmatch(string(text), -1) {
		sections[m[1]] = true
	}
	for _, r := range rules.Default(rules.DefaultLimits()) {
		if !sections[r.Code] {
			t.Errorf("rule %s has no section", r.Code)
		}
		delete(sections, r.Code)
	}
	for s := range sections {
		t.Errorf("section %s has no rule", s)
	}
	for _, m := range regexp.MustCompile("`dream ([a-z -]+)").FindAllStringSubmatch(string(text), -1) {
		at := reflect.TypeFor[cli]()
		for word := range strings.FieldsSeq(m[1]) {
			next, ok := command(at, word)
			if !ok {
				t.Errorf("dream %s: there is no %q", m[1], word)
				break
			}
			at = next
		}
	}
}

// command finds a subcommand by its name on the command line.
func command(of reflect.Type, word string) (reflect.Type, bool) {
	for i := range of.NumField() {
		f := of.Field(i)
		name := f.Tag.Get("name")
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		if _, ok := f.Tag.Lookup("cmd"); ok && name == word {
			return f.Type, true
		}
	}
	return nil, false
}
