package main

import (
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
files and folders of log.places (logs of other machines, on a shared disk). Lines come in the order of their times.`
}

// Run prints the lines about a job.
func (c *logsCmd) Run(a *app) error {
	places := a.config.Log.Places
	if a.config.Log.File != "" {
		places = append([]string{a.config.Log.File}, places...)
	}
	if len(places) == 0 {
		return usagef("neither log.file nor log.places is set: there is no file to look into")
	}
	if len(c.Job) < 6 {
		return usagef("%q is too short; give 6 or more characters of the job id", c.Job)
	}
	n, err := logfile.Job(a.stdout, places, strings.ToUpper(c.Job))
	if err == nil && n == 0 {
		err = fmt.Errorf("no line about the job %q", c.Job)
	}
	return err
}
