package main

import (
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"text/tabwriter"

	"dreamcad/ops/logfile"
)

type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Check the configuration; exit code 2 when something is wrong."`
	Show  configShowCmd  `cmd:"" help:"Print the effective settings with their source, secrets masked."`
	Docs  configDocsCmd  `cmd:"" help:"Print every setting as Markdown (docs/configuration.md)." hidden:""`
}

type configCheckCmd struct{}

// Run looks for slips in the names of variables; what else is wrong has ended the program
// before.
func (*configCheckCmd) Run(a *app) error {
	if err := unknownVariables(os.Environ()); err != nil {
		return usageError{err}
	}
	_, err := fmt.Fprintln(a.stdout, "The configuration is valid.")
	return err
}

type configShowCmd struct {
	JSON bool `help:"Print JSON."`
}

// Run prints path, value and source of each setting.
func (c *configShowCmd) Run(a *app) error {
	type row struct {
		Setting string `json:"setting"`
		Value   string `json:"value"`
		Source  string `json:"source"`
	}
	var rows []row
	walkSettings(reflect.ValueOf(a.config.settings), "", func(path string, _ reflect.StructField, v reflect.Value) {
		rows = append(rows, row{path, logfile.Clean(settingText(v)), a.config.source[path]})
	})
	if c.JSON {
		return printJSON(a.stdout, rows)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "SETTING\tVALUE\tSOURCE")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Setting, r.Value, r.Source)
	}
	return w.Flush()
}

type configDocsCmd struct{}

// Run writes the reference that is committed as docs/configuration.md.
func (*configDocsCmd) Run(a *app) error {
	fmt.Fprint(a.stdout, "# Configuration\n\nWritten by `dream config docs`; do not edit.\n\n"+
		"Settings come from defaults, then the file that `--config` (or `DREAM_CONFIG`) names, then the environment, then flags. "+
		"`dream config show` prints the effective values and where each came from.\n\n"+
		"| setting | variable | default | meaning |\n|---|---|---|---|\n")
	walkSettings(reflect.ValueOf(documentedDefaults()), "", func(path string, f reflect.StructField, v reflect.Value) {
		fmt.Fprintf(a.stdout, "| `%s` | `%s` | %s | %s |\n", path, variable(path), code(settingText(v)), strings.ReplaceAll(f.Tag.Get("help"), "|", `\|`))
	})
	return nil
}

// documentedDefaults are the defaults without what differs between machines.
func documentedDefaults() settings {
	s := defaults()
	s.Data = "~/.local/share/dreamcad"
	return s
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// isLoopback tells whether a listen address is reachable from this machine only.
func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
