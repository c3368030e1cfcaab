package main

import (
	"errors"
	"fmt"
	"strings"

	"dreamcad/ops/logfile"
)

type logsCmd struct {
	Job string `arg:"" help:"Job id, or its last characters (6 or more)."`
}

// Help says where it looks.
func (*logsCmd) Help() string {
	return `Looks into log.file, its older files and those of other processes with the same setting, and into the
files and folders of log.places (logs of other machines, on a shared disk; of folders all *.log and *.log.gz).
Lines come in the order of their times. What systemd keeps is found with journalctl -o cat -g JOB.`
}

// Run prints the lines about a job.
func (c *logsCmd) Run(a *app) error {
	places := a.config.Log.Places
	if a.config.Log.File != "" {
		places = append([]string{a.config.Log.File}, places...)
	}
	if len(places) == 0 {
		return usagef("neither log.file nor log.places is set: there is no file to look into (journalctl -o cat -g %s looks into the journal)", c.Job)
	}
	if len(c.Job) < 6 {
		return usagef("%q is too short; give 6 or more characters of the job id", c.Job)
	}
	found, err := logfile.Job(a.stdout, places, c.Job)
	if err != nil {
		return err
	}
	for _, t := range found.Trouble {
		fmt.Fprintf(a.stderr, "dream: something may be missing: %v\n", t)
	}
	switch {
	case len(found.Jobs) > 1:
		return fmt.Errorf("several jobs end in %q: %s", c.Job, strings.Join(found.Jobs, ", "))
	case found.Lines > 0:
		return nil
	case found.Files == 0:
		return fmt.Errorf("there is no log file at %s", strings.Join(places, ", "))
	}
	files := "1 file"
	if found.Files > 1 {
		files = fmt.Sprintf("%d files", found.Files)
	}
	text := fmt.Sprintf("no line about the job %q in %s of %s", c.Job, files, strings.Join(places, ", "))
	if found.Missing != nil {
		text += fmt.Sprintf("; nothing is at %s", strings.Join(found.Missing, ", "))
	}
	return errors.New(text + " (files of other machines have to be in log.places, and ten of 10 MB are kept)")
}
