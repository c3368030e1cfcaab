package doctor

import (
	"fmt"
	"io"
	"strings"
	"time"
)

var colours = map[Verdict]string{Pass: "\x1b[32m", Warn: "\x1b[33m", Fail: "\x1b[31m", Unknown: "\x1b[36m"}

// Print writes the results for people.
func Print(w io.Writer, rs []Result, colour bool) error {
	for i := range rs {
		r := &rs[i]
		verdict := fmt.Sprintf("%-7s", r.Verdict)
		if colour {
			verdict = colours[r.Verdict] + verdict + "\x1b[0m"
		}
		text := fmt.Sprintf("%s  %s: %s\n", verdict, r.Title, r.Text)
		if r.Do != "" {
			text += "         → " + r.Do + "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, Summary(rs))
	return err
}

// Summary counts the verdicts in one line.
func Summary(rs []Result) string {
	count := map[Verdict]int{}
	for i := range rs {
		count[rs[i].Verdict]++
	}
	return fmt.Sprintf("%d checks: %d passed, %d warnings, %d failed, %d unknown.", len(rs), count[Pass], count[Warn], count[Fail], count[Unknown])
}

// Markdown writes the results as a document to hand on.
func Markdown(w io.Writer, rs []Result, host, version string, at time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# dream doctor on %s\n\n%s, %s. %s\n\n| verdict | check | what is so | what to do |\n|---|---|---|---|\n",
		host, at.UTC().Format("2006-01-02 15:04 UTC"), version, Summary(rs))
	cell := strings.NewReplacer("|", "\\|", "\n", " ", "<", "&lt;")
	for i := range rs {
		r := &rs[i]
		verdict := string(r.Verdict)
		if r.Verdict == Fail || r.Verdict == Warn {
			verdict = "**" + verdict + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", verdict, cell.Replace(r.Title), cell.Replace(r.Text), cell.Replace(r.Do))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
