package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// result is what one round of one test showed.
type result struct {
	row, test         string
	round             int
	verdict           string
	seconds           float64
	jobs, lost, twice int
	restart           int // the worst, milliseconds
	at                time.Time
}

// What became of a round. A test that may not run on this machine is skipped;
// it counts for nothing.
const (
	fine    = "ok"
	skipped = "skipped"
	failed  = "FAILED"
)

// The lines that queuetest.Counts and queuetest.Restarted write.
var (
	countsLine  = regexp.MustCompile(`counts: (\d+) jobs, (\d+) lost, (\d+) effects other than once`)
	restartLine = regexp.MustCompile(`restart: (\d+) ms after the fault`)
	skipLine    = regexp.MustCompile(`(?m)^--- SKIP`)
	passLine    = regexp.MustCompile(`(?m)^--- PASS`)
)

// read judges and adds up a test's output.
func (r *result) read(out string, err error) {
	for _, m := range countsLine.FindAllStringSubmatch(out, -1) {
		r.jobs += number(m[1])
		r.lost += number(m[2])
		r.twice += number(m[3])
	}
	for _, m := range restartLine.FindAllStringSubmatch(out, -1) {
		r.restart = max(r.restart, number(m[1]))
	}
	switch {
	case err != nil:
		r.verdict = failed
	case skipLine.MatchString(out):
		r.verdict = skipped
	case passLine.MatchString(out):
		r.verdict = fine
	default: // no test has that name
		r.verdict = failed
	}
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // digits only, or a line that somebody edited
	return n
}

// book keeps the results of all rounds in a file with a line each.
type book struct {
	file    *os.File
	results []result
}

func openBook(path string) (*book, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	b := &book{file: f}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if r, err := parse(sc.Text()); err == nil {
			b.results = append(b.results, r)
		}
	}
	return b, nil
}

func (b *book) close() { _ = b.file.Close() } // every line was written when it was known

func (r result) String() string {
	return fmt.Sprintf("%s\t%s\t%d\t%s\t%.1f\t%d\t%d\t%d\t%d\t%s", r.row, r.test, r.round, r.verdict, r.seconds, r.jobs, r.lost, r.twice, r.restart, r.at.UTC().Format(time.RFC3339))
}

func parse(line string) (r result, err error) {
	f := strings.Split(line, "\t")
	if len(f) != 10 {
		return r, errors.New("not a line of ten fields")
	}
	seconds, _ := strconv.ParseFloat(f[4], 64)
	r = result{row: f[0], test: f[1], round: number(f[2]), verdict: f[3], seconds: seconds,
		jobs: number(f[5]), lost: number(f[6]), twice: number(f[7]), restart: number(f[8])}
	r.at, err = time.Parse(time.RFC3339, f[9])
	return r, err
}

func (b *book) add(r result) {
	r.at = time.Now()
	b.results = append(b.results, r)
	if _, err := fmt.Fprintln(b.file, r); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
	}
}

// has tells whether the round was run and went well.
func (b *book) has(row, test string, round int) bool {
	for _, r := range b.results {
		if r.row == row && r.test == test && r.round == round && r.verdict == fine {
			return true
		}
	}
	return false
}

// table is a Markdown table of the rows' sums. A round that failed stays in it.
func (b *book) table(rows []row) string {
	var s strings.Builder
	first, last := time.Time{}, time.Time{}
	for _, r := range b.results {
		if first.IsZero() || r.at.Before(first) {
			first = r.at
		}
		if r.at.After(last) {
			last = r.at
		}
	}
	days := last.Format("2 January 2006")
	if d := first.Format("2 January 2006"); d != days {
		days = d + " to " + days
	}
	fmt.Fprintf(&s, "%s, %d processors. Rounds and failed rounds are of all the row's tests.\n\n", days, runtime.NumCPU())
	s.WriteString("| # | fault | rounds | failed | jobs | lost | effects other than once | worst restart |\n|---|---|---:|---:|---:|---:|---:|---:|\n")
	for _, x := range rows {
		sum, n, bad := result{}, 0, 0
		for _, r := range b.results {
			if r.row != x.number || r.verdict == skipped {
				continue
			}
			n++
			if r.verdict == failed {
				bad++
			}
			sum.jobs += r.jobs
			sum.lost += r.lost
			sum.twice += r.twice
			sum.restart = max(sum.restart, r.restart)
		}
		jobs, restart := "– | – | –", "–"
		if sum.jobs > 0 {
			jobs = fmt.Sprintf("%d | %d | %d", sum.jobs, sum.lost, sum.twice)
		}
		if sum.restart > 0 {
			restart = fmt.Sprintf("%.1f s", float64(sum.restart)/1000)
		}
		fmt.Fprintf(&s, "| %s | %s | %d | %d | %s | %s |\n", x.number, x.fault, n, bad, jobs, restart)
	}
	return s.String()
}

// The table stands between these lines of the document.
const (
	tableBegin = "<!-- counts of make test-faults -->"
	tableEnd   = "<!-- end of the counts -->"
)

func writeBetween(path, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table: it needs the lines %q and %q", path, tableBegin, tableEnd)
	}
	return os.WriteFile(path, []byte(before+tableBegin+"\n"+text+tableEnd+after), 0o644)
}
