package main

import (
	"context"
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"dreamcad/ops/gpu"
	"dreamcad/ops/host"
	"dreamcad/ops/monitor"
	"dreamcad/queue"
)

type monitorCmd struct {
	Once  bool          `help:"Print once and end; so it is, too, where the output is no terminal."`
	Every time.Duration `help:"Time between two looks." default:"2s"`
	Since time.Duration `help:"How far back the plots go; at most a day." default:"1h"`
	Local bool          `help:"Read the sensors of this machine; needs no service and shows no history."`
	JSON  bool          `name:"json" help:"Print the newest samples as JSON."`
	SVG   string        `name:"svg" help:"Write the history as a plot." type:"path" placeholder:"FILE"`
}

// Help is the long help.
func (*monitorCmd) Help() string {
	return `Shows what each process of the service last saw (they tell each ops.servers_every), and its figures over time.`
}

// Run shows until an interrupt.
func (c *monitorCmd) Run(a *app) error {
	switch {
	case c.Every < 100*time.Millisecond:
		return usagef("--every %v is shorter than 100ms", c.Every)
	case c.Since <= 0 || c.Since > monitor.Life:
		return usagef("--since %v is not between 0 and %v", c.Since, monitor.Life)
	}
	if c.Local {
		return c.local(a)
	}
	return withQueue(a, func(q queue.Queue) error {
		switch {
		case c.SVG != "":
			return c.plot(a, q)
		case c.JSON:
			fleet, _, err := monitor.Fleet(a.ctx, q)
			if err != nil {
				return err
			}
			return printJSON(a.stdout, fleet)
		}
		return c.show(a, func(ctx context.Context) ([]monitor.Live, error) {
			fleet, _, err := monitor.Fleet(ctx, q)
			return fleet, err
		}, q)
	})
}

// local shows this machine's sensors.
func (c *monitorCmd) local(a *app) error {
	local := host.Sensors{Directories: directories(a)}
	cards, err := gpu.Open()
	if err == nil {
		defer cards.Close()
	} else {
		cards = nil
		fmt.Fprintf(a.stderr, "No GPU is shown: %v.\n", err)
	}
	began := time.Now().UTC()
	look := func(ctx context.Context) ([]monitor.Live, error) {
		l := monitor.Live{Name: hostName(), Role: "local", Host: hostName(), Version: version(), Started: began, At: time.Now().UTC(), Local: local.Read(ctx)}
		if cards != nil {
			l.Cards = cards.Read()
		}
		return []monitor.Live{l}, nil
	}
	if c.JSON {
		l, _ := look(a.ctx)
		return printJSON(a.stdout, l)
	}
	return c.show(a, look, nil)
}

// show prints the picture, again and again on a terminal.
func (c *monitorCmd) show(a *app, look func(context.Context) ([]monitor.Live, error), history queue.State) error {
	living := !c.Once && isTerminal(a.stdout)
	for {
		fleet, err := look(a.ctx)
		if err != nil {
			return err
		}
		var b strings.Builder
		if len(fleet) == 0 {
			b.WriteString("No process of the service has told anything within a day. dream up, dream worker and dream bot do.\n")
		}
		for i := range fleet {
			if err := picture(a.ctx, &b, &fleet[i], history, c.Since); err != nil {
				return err
			}
		}
		text := b.String()
		if living {
			text = "\x1b[H\x1b[J" + text // from the corner, and clear what was there
		}
		if _, err := io.WriteString(a.stdout, text); err != nil || !living {
			return err
		}
		select {
		case <-a.ctx.Done():
			return nil
		case <-time.After(c.Every):
		}
	}
}

// sparkWidth is how many characters a plot takes.
const sparkWidth = 48

// picture prints one process.
func picture(ctx context.Context, out io.Writer, l *monitor.Live, history queue.State, since time.Duration) error {
	state := "now"
	if passed := time.Since(l.At).Round(time.Second); passed > monitor.Quiet {
		state = fmt.Sprintf("silent for %v", passed)
	}
	fmt.Fprintf(out, "%s (%s on %s, %s)\n", l.Name, l.Role, l.Host, state)
	for _, d := range l.Doing {
		fmt.Fprintf(out, "  %s %s: %s %d/%d\n", d.Kind, d.Job, d.Stage, d.Step, d.Total)
	}
	switch {
	case l.Held:
		fmt.Fprintln(out, "  the work waits for a card to cool")
	case l.Rest > 0.01:
		fmt.Fprintf(out, "  resting %.0f %% of the time to spare the card\n", 100*l.Rest)
	}
	if l.Refusing != "" {
		fmt.Fprintf(out, "  takes no new work: %s\n", l.Refusing)
	}
	if len(l.Firing) > 0 {
		fmt.Fprintf(out, "  alerts: %s\n", strings.Join(l.Firing, ", "))
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for i := range l.Cards {
		c := &l.Cards[i]
		if c.Lost != "" {
			fmt.Fprintf(w, "  GPU %d %s\tLOST: %s\n", c.Index, c.Name, c.Lost)
			continue
		}
		fmt.Fprintf(w, "  GPU %d %s\t%v °C (margin %v)\t%v/%v W\t%v/%v MiB\t%v %%\t%v MHz\t%s\n", c.Index, c.Name, figure(c.Temperature, 1), figure(c.SlowdownMargin, 1),
			figure(c.Power, 1), figure(c.PowerLimit, 1), figure(c.MemoryUsed, 1<<20), figure(c.MemoryTotal, 1<<20), figure(c.Utilisation, 1), figure(c.ClockSM, 1), strings.Join(c.Throttle, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	figures := monitor.Figures(l)
	var series map[string]monitor.Series
	if history != nil {
		var err error
		if series, err = monitor.Read(ctx, history, l.Name, time.Now().Add(-since), time.Now()); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(figures)) {
		s := series[name]
		if lo, hi, _, ok := s.Extent(); ok {
			fmt.Fprintf(w, "  %s\t%.4g\t%s\t%.4g to %.4g\n", name, figures[name], s.Sparkline(sparkWidth), lo, hi)
		} else {
			fmt.Fprintf(w, "  %s\t%.4g\n", name, figures[name])
		}
	}
	fmt.Fprintln(w)
	return w.Flush()
}

// plot writes the history of all processes into one SVG.
func (c *monitorCmd) plot(a *app, q queue.State) error {
	all, err := histories(a.ctx, q, c.Since)
	if err != nil {
		return err
	}
	merged := map[string]monitor.Series{}
	for process, figures := range all {
		for figure, s := range figures {
			merged[process+": "+figure] = s
		}
	}
	if len(merged) == 0 {
		return fmt.Errorf("no process of the service has told anything within %v", c.Since)
	}
	return os.WriteFile(c.SVG, []byte(monitor.SVG("dreamcad", merged)), 0o644)
}

// histories are the figures of each process that has told something since then.
func histories(ctx context.Context, q queue.State, since time.Duration) (map[string]map[string]monitor.Series, error) {
	now := time.Now()
	names, err := monitor.Recorded(ctx, q, now.Add(-since))
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]monitor.Series{}
	for _, name := range names {
		if out[name], err = monitor.Read(ctx, q, name, now.Add(-since), now); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// monitorPage shows the live figures and the plots in the console; ?since=24h
// looks further back.
func monitorPage(q queue.State) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		since := time.Hour
		if d, err := time.ParseDuration(r.FormValue("since")); err == nil && d > 0 && d <= monitor.Life {
			since = d
		}
		fleet, _, err := monitor.Fleet(r.Context(), q)
		var b strings.Builder
		for i := range fleet {
			if err == nil {
				err = picture(r.Context(), &b, &fleet[i], nil, since)
			}
		}
		var all map[string]map[string]monitor.Series
		if err == nil {
			all, err = histories(r.Context(), q, since)
		}
		if err != nil {
			http.Error(rw, "the queue does not answer", http.StatusServiceUnavailable)
			return
		}
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(rw, `<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="10"><link rel="icon" href="data:,"><title>dreamcad: sensors</title>
<body style="font-family:sans-serif;max-width:75rem;margin:1rem auto;padding:0 1rem"><p><a href="/">Console</a> · <a href="?since=1h">hour</a> · <a href="?since=24h">day</a></p><pre>%s</pre>`, html.EscapeString(b.String()))
		for _, name := range slices.Sorted(maps.Keys(all)) {
			fmt.Fprint(rw, monitor.SVG(name, all[name]))
		}
	})
}
