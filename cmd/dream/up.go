package main

import "errors"

type upCmd struct {
	Listen string `help:"Address of the web console (default: web.listen, 127.0.0.1:7860)." placeholder:"HOST:PORT"`
	Data   string `help:"Folder for everything that is kept on this machine." type:"path" placeholder:"DIR"`
}

// Run starts queue, storage, worker and console and ends at the first interrupt.
func (c *upCmd) Run(a *app) error {
	return errors.New("start the service: the console is not part of this build")
}
