package main

import "dreamcad/queue"

type viewsCmd struct{ makeFlags }

// Help is the long help.
func (c *viewsCmd) Help() string {
	return `Writes view-0.png … view-3.png, the sheet views.png and the manifest result.json.`
}

// Run makes four pictures.
func (c *viewsCmd) Run(a *app) error { return c.make(a, queue.Views, nil) }
