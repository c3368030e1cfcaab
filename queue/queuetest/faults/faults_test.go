package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dreamcad/queue/queuetest"
)

// The lines of a test's output are added up; a round that went well is not run
// again, one that failed is, and stays in the table.
func TestRounds(t *testing.T) {
	dir := t.TempDir()
	b, err := openBook(filepath.Join(dir, "rounds.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	out := "    x_test.go:1: " + fmt.Sprintf(queuetest.CountsLine, 7, 1, 2) + "\n    x_test.go:2: " + fmt.Sprintf(queuetest.CountsLine, 3, 0, 0) +
		"\n    x_test.go:3: " + fmt.Sprintf(queuetest.RestartLine, 1500) + "\n    x_test.go:3: " + fmt.Sprintf(queuetest.RestartLine, 900) + "\n"
	for _, c := range []struct {
		row, out string
		err      error
		want     string
	}{
		{"1", out + "--- PASS: TestX (1.00s)\nPASS\n", nil, fine},
		{"2", out + "--- FAIL: TestX (1.00s)\nFAIL\n", errors.New("exit status 1"), failed},
		{"3", "--- SKIP: TestX (0.00s)\nPASS\n", nil, skipped},
		{"4", "testing: warning: no tests to run\nPASS\n", nil, failed},
	} {
		r := result{row: c.row, test: "p TestX", round: 1}
		r.read(c.out, c.err)
		if r.verdict != c.want {
			t.Errorf("row %s is %q, want %q", c.row, r.verdict, c.want)
		}
		b.add(r)
	}
	b.close()
	if b, err = openBook(filepath.Join(dir, "rounds.tsv")); err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if !b.has("1", "p TestX", 1) || b.has("1", "p TestX", 2) || b.has("2", "p TestX", 1) || b.has("3", "p TestX", 1) {
		t.Error("the wrong rounds would be run again")
	}
	doc := filepath.Join(dir, "doc.md")
	if err := os.WriteFile(doc, []byte("before\n"+tableBegin+"\nold\n"+tableEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeBetween(doc, b.table(matrix)); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(doc)
	for _, want := range []string{"before\n", "| 1 | " + matrix[0].fault + " | 1 | 0 | 10 | 1 | 2 | 1.5 s |\n", "| 2 | " + matrix[1].fault + " | 1 | 1 | 10 |",
		"| 3 | " + matrix[2].fault + " | 0 | 0 | – | – | – | – |\n", "\nafter\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the document has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old table is still there")
	}
}

// Every test that the matrix names exists.
func TestMatrixNamesTests(t *testing.T) {
	for _, r := range matrix {
		for _, p := range r.parts {
			files, _ := filepath.Glob(filepath.Join("..", "..", "..", p.dir, "*_test.go"))
			var source strings.Builder
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				source.Write(b)
			}
			for name := range strings.SplitSeq(p.test, "|") {
				if !regexp.MustCompile(`(?m)^func ` + name + `\(`).MatchString(source.String()) {
					t.Errorf("row %s names %s, which %s has not", r.number, name, p.dir)
				}
			}
		}
	}
}
