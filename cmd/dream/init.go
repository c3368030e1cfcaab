package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

type initCmd struct {
	File  string   `arg:"" optional:"" type:"path" default:"dream.yaml" help:"File to write."`
	Set   []string `help:"Set a value; may be repeated. dream config show lists the names." placeholder:"NAME=VALUE" sep:"none"`
	Force bool     `help:"Replace the file if it is there."`
}

// Help is the long help.
func (*initCmd) Help() string {
	return `Writes a configuration file that shows every setting with its meaning and its default. On a terminal it
asks for the few that most set-ups need; elsewhere it asks nothing. Tokens are better kept in files of their
own, which the _file settings name, or in the environment.`
}

// questions are asked on a terminal, in this order.
var questions = []string{"data", "web.listen", "queue.url", "storage.url"}

// Run asks, checks and writes.
func (c *initCmd) Run(a *app) error {
	if _, err := os.Stat(c.File); err == nil && !c.Force {
		return usagef("%s is there already; --force replaces it", c.File)
	}
	values := map[string]string{}
	for _, s := range c.Set {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return usagef("--set %q is not NAME=VALUE", s)
		}
		values[name] = value
	}
	if f, ok := a.stdin.(*os.File); ok && isTerminal(f) && isTerminal(a.stdout) {
		if err := ask(a.stdin, a.stdout, values); err != nil {
			return err
		}
	}
	text, err := configFile(values)
	if err != nil {
		return err
	}
	if err := writeConfig(c.File, text); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s is written. Use it with --config %s or DREAM_CONFIG=%s; dream doctor checks the set-up.\n", c.File, c.File, c.File)
	return err
}

// ask lets a person choose what is not set yet; an empty answer takes the default.
func ask(in io.Reader, out io.Writer, values map[string]string) error {
	lines := bufio.NewScanner(in)
	standard := flatten(defaults())
	help := map[string]string{}
	walkSettings(reflect.ValueOf(defaults()), "", func(path string, f reflect.StructField, _ reflect.Value) { help[path] = f.Tag.Get("help") })
	for _, name := range questions {
		if _, set := values[name]; set {
			continue
		}
		fmt.Fprintf(out, "%s\n%s [%s]: ", help[name], name, standard[name])
		if !lines.Scan() {
			fmt.Fprintln(out)
			return lines.Err()
		}
		if answer := strings.TrimSpace(lines.Text()); answer != "" {
			values[name] = answer
		}
	}
	return nil
}

// configFile is the text of a configuration: every setting as a comment with its
// default, those of values set.
func configFile(values map[string]string) (string, error) {
	var b strings.Builder
	b.WriteString("# Configuration of dreamcad. A setting that is commented out shows its default.\n" +
		"# DREAM_ and the name in capitals (DREAM_QUEUE_URL) in the environment goes before this file.\n")
	section, known := "", map[string]bool{}
	var failed error
	walkSettings(reflect.ValueOf(defaults()), "", func(path string, f reflect.StructField, v reflect.Value) {
		known[path] = true
		name, indent := path, ""
		if group, rest, nested := strings.Cut(path, "."); nested {
			name, indent = rest, "  "
			if group != section {
				section = group
				fmt.Fprintf(&b, "\n%s:\n", group)
			}
		}
		mark, shown := "#", v.Interface()
		if _, isTime := shown.(time.Duration); isTime {
			shown = settingText(v)
		}
		if text, set := values[path]; set {
			mark, shown = "", settingValue(v, text)
		}
		text, err := yaml.MarshalWithOptions(shown, yaml.Flow(true))
		if err != nil {
			failed = err
		}
		fmt.Fprintf(&b, "%s# %s\n%s%s%s: %s\n", indent, f.Tag.Get("help"), indent, mark, name, strings.TrimSpace(string(text)))
	})
	for name := range values {
		if !known[name] {
			return "", usagef("there is no setting %q; dream config show lists them", name)
		}
	}
	return b.String(), failed
}

// settingValue is text as YAML shall show it: numbers and times stay bare.
func settingValue(v reflect.Value, text string) any {
	switch v.Kind() {
	case reflect.Slice:
		return strings.Split(text, ",")
	case reflect.String:
		return text
	}
	var bare any
	if yaml.Unmarshal([]byte(text), &bare) != nil {
		return text
	}
	return bare
}

// writeConfig writes the file after the program itself has read it.
func writeConfig(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make the folder of the configuration: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".dream-*.yaml") // mode 0600: it may come to hold secrets
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	defer os.Remove(f.Name()) // nothing is left to remove once it is renamed
	_, err = f.WriteString(text)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	if _, err := loadConfig(f.Name(), nil); err != nil {
		return usageError{fmt.Errorf("these values do not work: %w", err)}
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}
