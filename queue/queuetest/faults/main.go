// Command faults runs the fault matrix: every row so often, two at once, and a
// table of what was counted. Rounds that went well are not run again, so that it
// may be interrupted and goes on where it was; make test-faults calls it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(1)
	}
}

// settings come from the command line.
type settings struct {
	rows    []string
	rounds  int
	workers int
	out     string
	doc     string
	within  time.Duration
}

func run(ctx context.Context) error {
	var s settings
	rows := flag.String("rows", "", "rows to run, such as 1,4,17 (all)")
	flag.IntVar(&s.rounds, "rounds", 20, "rounds of each row")
	flag.IntVar(&s.workers, "at-once", 2, "tests that run at once")
	flag.StringVar(&s.out, "out", "out/faults", "folder for counts and the logs of failures; remove it to begin anew")
	flag.StringVar(&s.doc, "doc", "", "document whose table of counts is written anew, unless -rows chooses some")
	flag.DurationVar(&s.within, "within", 0, "begin no round after this time (no limit)")
	flag.Parse()
	s.rows = strings.FieldsFunc(*rows, func(r rune) bool { return r == ',' || r == ' ' })
	for _, r := range s.rows {
		if !slices.ContainsFunc(matrix, func(x row) bool { return x.number == r }) {
			return fmt.Errorf("there is no row %q", r)
		}
	}
	if err := os.MkdirAll(filepath.Join(s.out, "bin"), 0o755); err != nil {
		return err
	}
	book, err := openBook(filepath.Join(s.out, "rounds.tsv"))
	if err != nil {
		return err
	}
	defer book.close()
	failed := s.play(ctx, book)
	table := book.table(s.chosen())
	fmt.Println("\n" + table)
	if err := os.WriteFile(filepath.Join(s.out, "table.md"), []byte(table), 0o644); err != nil {
		return err
	}
	if s.doc != "" && len(s.rows) == 0 {
		if err := writeBetween(s.doc, table); err != nil {
			return err
		}
	}
	return failed
}

func (s *settings) chosen() []row {
	if len(s.rows) == 0 {
		return matrix
	}
	var out []row
	for _, r := range matrix {
		if slices.Contains(s.rows, r.number) {
			out = append(out, r)
		}
	}
	return out
}

// play runs what is missing: the first round of all rows, then the second, so
// that an interrupted run has seen every row about as often.
func (s *settings) play(ctx context.Context, b *book) error {
	type task struct {
		row   row
		part  part
		round int
	}
	tasks := make(chan task)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad []string
	for range max(s.workers, 1) {
		wg.Go(func() {
			for t := range tasks {
				r := s.round(ctx, t.row.number, t.part, t.round)
				if ctx.Err() != nil {
					continue // its failure is the interruption
				}
				mu.Lock()
				b.add(r)
				if r.verdict == failed {
					bad = append(bad, fmt.Sprintf("row %s round %d (%s)", r.row, r.round, r.test))
				}
				fmt.Printf("%s  row %-2s  round %2d/%d  %6.1f s  %6d jobs  lost %d  twice %d  %s  %s\n", time.Now().Format("15:04:05"),
					r.row, r.round, s.rounds, r.seconds, r.jobs, r.lost, r.twice, r.verdict, r.test)
				mu.Unlock()
			}
		})
	}
	begun := time.Now()
feed:
	for n := 1; n <= s.rounds; n++ {
		for _, r := range s.chosen() {
			for _, p := range r.parts {
				if b.has(r.number, p.String(), n) {
					continue
				}
				if s.within > 0 && time.Since(begun) > s.within {
					break feed
				}
				select {
				case tasks <- task{r, p, n}:
				case <-ctx.Done():
					break feed
				}
			}
		}
	}
	close(tasks)
	wg.Wait()
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; the same command goes on")
	case len(bad) > 0:
		return fmt.Errorf("%d rounds failed, their logs are in %s: %s", len(bad), s.out, strings.Join(bad, ", "))
	}
	return nil
}

// round runs one test once.
func (s *settings) round(ctx context.Context, row string, p part, n int) result {
	r := result{row: row, test: p.String(), round: n}
	program, err := s.build(ctx, p.dir)
	var out []byte
	begun := time.Now()
	if err == nil {
		c := exec.CommandContext(ctx, program, "-test.run", "^("+p.test+")$", "-test.v", "-test.timeout", "10m")
		c.Dir = p.dir
		c.Env = append(os.Environ(), "DREAM_FAULT_LONG=1", "DREAM_FAULT_SEED="+strconv.Itoa(n))
		c.WaitDelay = 10 * time.Second
		out, err = c.CombinedOutput()
	}
	r.seconds = time.Since(begun).Seconds()
	r.read(string(out), err)
	if r.verdict == failed && ctx.Err() == nil {
		log := filepath.Join(s.out, fmt.Sprintf("row%s-round%d-%s.log", row, n, filepath.Base(p.dir)))
		text := fmt.Appendf(out, "\n%v\n", err)
		if err := os.WriteFile(log, text, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "faults:", err)
		}
	}
	return r
}

var builds sync.Map // folder → func() (string, error)

// build compiles the tests of a package, once.
func (s *settings) build(ctx context.Context, dir string) (string, error) {
	once, _ := builds.LoadOrStore(dir, sync.OnceValues(func() (string, error) {
		program, err := filepath.Abs(filepath.Join(s.out, "bin", strings.ReplaceAll(dir, "/", "-")+".test"))
		if err != nil {
			return "", err
		}
		if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "./"+dir).CombinedOutput(); err != nil {
			return "", fmt.Errorf("build the tests of %s: %w\n%s", dir, err, out)
		}
		return program, nil
	}))
	return once.(func() (string, error))()
}
