// Package crash keeps a job's crashes as one text, the same in both backends: a
// line each, between line breaks of its own, with worker, exit, kind, attempt and
// time (ms) between tabs. A line of one word is a worker that crashed under an
// earlier version of the program.
package crash

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/internal/order"
)

// MaxWord bounds worker and exit, in bytes.
const MaxWord = 100

// Word is s as it may stand in a line.
func Word(s string) string {
	return order.Cut(strings.NewReplacer("\t", " ", "\n", " ").Replace(s), MaxWord)
}

// Line is one crash as text.
func Line(c queue.Crash) string {
	return fmt.Sprintf("\n%s\t%s\t%s\t%d\t%d\n", Word(c.Worker), Word(c.Exit), c.Kind, c.Attempt, c.At.UnixMilli())
}

// List reads the crashes in their order.
func List(s string) []queue.Crash {
	var out []queue.Crash
	for line := range strings.SplitSeq(s, "\n") {
		if line == "" {
			continue
		}
		f := append(strings.Split(line, "\t"), "", "", "", "")
		c := queue.Crash{Worker: f[0], Exit: f[1], Kind: queue.FailKind(f[2])}
		c.Attempt, _ = strconv.Atoi(f[3]) // absent: not known
		if ms, err := strconv.ParseInt(f[4], 10, 64); err == nil {
			c.At = time.UnixMilli(ms).UTC()
		}
		out = append(out, c)
	}
	return out
}

// Workers counts the different workers among them.
func Workers(s string) int {
	seen := map[string]bool{}
	for _, c := range List(s) {
		seen[c.Worker] = true
	}
	return len(seen)
}

// Bound cuts the texts of a failure to what is stored: sentence, detail, the end
// of the log, and the exit in a few words.
func Bound(f *queue.Failure) {
	f.Sentence, f.Detail, f.Exit = order.Cut(f.Sentence, 1024), order.Cut(f.Detail, queue.MaxErrorText), Word(f.Exit)
	if over := len(f.Log) - queue.MaxErrorText; over > 0 {
		f.Log = strings.ToValidUTF8(f.Log[over:], "")
	}
}
