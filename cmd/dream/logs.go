package main

import (
	"fmt"

	"dreamcad/ops/logfile"
)

type logsCmd struct {
	Job string `arg:"" help:"Job id, or its last characters (6 or more)."`
}

// Run prints the lines about a job from log.file and its older files.
func (c *logsCmd) Run(a *app) error {
	if a.config.Log.File == "" {
		return usagef("log.file is not set: there is no file to look into")
	}
	if len(c.Job) < 6 {
		return usagef("%q is too short; give 6 or more characters of the job id", c.Job)
	}
	n, err := logfile.Job(a.stdout, a.config.Log.File, c.Job)
	if err == nil && n == 0 {
		err = fmt.Errorf("no line about the job %q", c.Job)
	}
	return err
}
