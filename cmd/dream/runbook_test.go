package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"dreamcad/ops/rules"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Every rule has its section in the runbook with what it means, what was done
// and what to do; every section has its rule.
func TestRunbook(t *testing.T) {
	sections := map[string]string{}
	for _, part := range strings.Split(readDoc(t, "runbook.md"), "\n## ")[1:] {
		code, text, _ := strings.Cut(part, "\n")
		if regexp.MustCompile(`^[a-z_]+$`).MatchString(code) {
			sections[code] = text
		}
	}
	for _, r := range rules.Default(rules.DefaultLimits()) {
		text, ok := sections[r.Code]
		if !ok {
			t.Errorf("rule %s has no section", r.Code)
		}
		for _, part := range []string{"**Means:**", "**Done already:**", "**Do:**"} {
			if ok && !strings.Contains(text, part) {
				t.Errorf("section %s has no %s", r.Code, part)
			}
		}
		delete(sections, r.Code)
	}
	for s := range sections {
		t.Errorf("section %s has no rule", s)
	}
}

// The ten failures are there, each with cause and cure.
func TestTroubleshooting(t *testing.T) {
	failures := 0
	for _, p := range strings.Split(readDoc(t, "troubleshooting.md"), "\n## ")[1:] {
		title, text, _ := strings.Cut(p, "\n")
		if !regexp.MustCompile(`^\d+\. `).MatchString(title) {
			continue
		}
		failures++
		for _, part := range []string{"**You see:**", "**Cause:**", "**Cure:**"} {
			if !strings.Contains(text, part) {
				t.Errorf("%q has no %s", title, part)
			}
		}
	}
	if failures != 10 {
		t.Errorf("%d failures", failures)
	}
}

// Every command, flag and setting that the documents for operators name exists.
func TestDocumentsNameWhatExists(t *testing.T) {
	inline := regexp.MustCompile("`(?:sudo )?(dream [^`]+)`")
	block := regexp.MustCompile(`(?m)^(?: {4}|\$ )(?:.*&& )?(dream .+)$`)
	setting := regexp.MustCompile("`((?:data|queue|storage|models|worker|web|chat|discord|slack|metrics|log|ops)\\.[a-z_]+)`")
	settings := flatten(defaults())
	for _, name := range []string{"runbook.md", "troubleshooting.md", "deploy/README.md", "docker/README.md", "chat.md", "storage.md", "jobs.md", "models.md"} {
		text := readDoc(t, name)
		commands := 0
		for _, m := range slices.Concat(inline.FindAllStringSubmatch(text, -1), block.FindAllStringSubmatch(text, -1)) {
			commands++
			if wrong := unknownCommand(strings.Fields(m[1])[1:]); wrong != "" {
				t.Errorf("%s names %q: there is no %q", name, m[1], wrong)
			}
		}
		for _, m := range setting.FindAllStringSubmatch(text, -1) {
			if _, ok := settings[m[1]]; !ok {
				t.Errorf("%s names the setting %s, which does not exist", name, m[1])
			}
		}
		if commands == 0 {
			t.Errorf("no command was found in %s", name)
		}
	}
}

// unknownCommand returns the first word of a command line (without the program's
// name) that is no subcommand or flag; "" if all are.
func unknownCommand(words []string) string {
	parser, err := kong.New(&cli{}, kong.Name("dream"), kong.Vars{"version": ""})
	if err != nil {
		return err.Error()
	}
	at := parser.Model.Node
	for _, word := range words {
		if flag, ok := strings.CutPrefix(word, "--"); ok {
			flag, _, _ = strings.Cut(strings.TrimRight(flag, ".,;:"), "=")
			known := flag == "help"
			for _, group := range at.AllFlags(false) {
				known = known || slices.ContainsFunc(group, func(f *kong.Flag) bool { return f.Name == flag })
			}
			if !known {
				return word
			}
			continue
		}
		var next *kong.Node
		for _, alternative := range strings.Split(word, "|") { // dream jobs list|show
			next = nil
			for _, child := range at.Children {
				if child.Name == alternative {
					next = child
				}
			}
			if next == nil {
				break
			}
		}
		switch {
		case next != nil:
			at = next
		case strings.HasPrefix(word, "#") || word == ">" || word == "|" || word == "&&":
			return ""
		case len(at.Children) == 0 || at.DefaultCmd != nil || strings.HasPrefix(word, "-") || word == "…":
			continue // its arguments, among which flags may stand
		default:
			return word
		}
	}
	return ""
}
