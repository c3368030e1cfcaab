package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestExamples demands that each command's help has examples, and that the program
// understands each of them as that command.
func TestExamples(t *testing.T) {
	root := repository(t)
	t.Chdir(root) // examples name files of the repository
	parser := newTestParser(t)
	used := map[string]bool{}
	var visit func(n *kong.Node, path string)
	visit = func(n *kong.Node, path string) {
		if n.Hidden {
			return
		}
		if !strings.Contains(n.Detail+n.Help, "Examples:") {
			t.Errorf("dream %s --help shows no example", path)
		}
		for _, line := range examples[path] {
			used[path] = true
			ctx, err := parser.Parse(commandWords(line))
			if err != nil {
				t.Errorf("dream %s --help: %s: %v", path, line, err)
			} else if got := words(ctx.Command()); got != path {
				t.Errorf("dream %s --help: %s is the command %q", path, line, got)
			}
		}
		for _, c := range n.Children {
			visit(c, strings.TrimSpace(path+" "+c.Name))
		}
	}
	visit(parser.Model.Node, "")
	for path := range examples {
		if !used[path] {
			t.Errorf("there are examples of %q, which is no command", path)
		}
	}
}

var (
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	codeLine   = regexp.MustCompile(`(?m)^    (.+)$`)
	someDream  = regexp.MustCompile(`(?:^|&& |[A-Z_]+=\S+ )(?:bin/)?dream(?:-cuda)?((?: [^|;#&]*)?)`)
	shellWord  = regexp.MustCompile(`(?:"[^"]*"|'[^']*'|[^\s"'])+`)
	incomplete = regexp.MustCompile(`^(expected|missing) `) // the name of a command stands for it
)

// TestDocs demands that the commands that the documentation names exist, with their flags.
func TestDocs(t *testing.T) {
	root := repository(t)
	t.Chdir(root)
	parser := newTestParser(t)
	var pages []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	n := 0
	for _, page := range pages {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(codeSpan.FindAllStringSubmatch(string(data), -1), codeLine.FindAllStringSubmatch(string(data), -1)...) {
			command := someDream.FindStringSubmatch(m[1])
			if command == nil || strings.Contains(m[1], "--help") {
				continue
			}
			n++
			args := commandWords("dream" + command[1])
			if len(args) == 0 {
				continue
			}
			_, err := parser.Parse(args)
			if err != nil && !incomplete.MatchString(err.Error()) {
				t.Errorf("%s: `%s`: %v", page, m[1], err)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d commands were found in the documentation", n)
	}
}

func newTestParser(t *testing.T) *kong.Kong {
	t.Helper()
	parser, err := newParser(new(cli), os.Stdout, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

// words are a command without its arguments.
func words(command string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(command), func(w string) bool { return strings.ContainsAny(w, "<[.") }), " ")
}

// commandWords are the arguments of a line as a shell would see them. Settings before the
// program and what stands behind > or < is left out; placeholders that are checked become a number
// or a file that exists.
func commandWords(line string) []string {
	_, line, _ = strings.Cut(strings.ReplaceAll(" "+line, "<(", " "), " dream")
	var out []string
	for _, w := range shellWord.FindAllString(line, -1) {
		w = strings.NewReplacer(`"`, "", `'`, "", ")", "", "cuda:N", "cuda:0").Replace(w)
		switch {
		case w == ">" || w == "<":
			return out
		case w == "N" || w == "X":
			w = "3"
		case w == "FILE" && out[len(out)-1] == "--settings":
			w = "go.mod"
		}
		out = append(out, w)
	}
	return out
}

// repository is the folder of the whole.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(fmt.Errorf("find the repository: %w", err))
	}
	return root
}
