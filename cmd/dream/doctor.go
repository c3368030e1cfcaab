package main

import (
	"errors"
	"os"

	"dreamcad/ops/doctor"
)

type doctorCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Help tells what the exit code means.
func (*doctorCmd) Help() string {
	return "Looks at machine, disks, cards, queue and storage. What could not be looked at is \"unknown\".\n\n" +
		"Exit code: 0 when no check failed (warnings included), 1 otherwise."
}

// Run prints what is right and wrong here.
func (c *doctorCmd) Run(a *app) error {
	d := doctor.Deps{Directories: []string{a.config.Data}}
	if err := os.MkdirAll(a.config.Data, 0o700); err != nil {
		return err
	}
	q, err := openQueue(a.ctx, a)
	if err != nil {
		d.QueueError = err
	} else {
		defer q.Close()
		d.Queue = q
	}
	store, err := openStore(a)
	if err != nil {
		d.StoreError = err
	} else {
		d.Store = store
	}
	rs := doctor.Run(a.ctx, d)
	if c.JSON {
		err = printJSON(a.stdout, rs)
	} else {
		err = doctor.Print(a.stdout, rs, isTerminal(a.stdout))
	}
	if err == nil && doctor.Worst(rs) == doctor.Fail {
		err = errors.New("at least one check failed")
	}
	return err
}
