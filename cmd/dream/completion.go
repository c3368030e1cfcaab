package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a script that completes subcommands, flags and their values, made from the
// same definition as the help.
func (c *completionCmd) Run(a *app) error {
	places := completionPlaces(a.parser.Model.Node, "")
	script := ""
	switch c.Shell {
	case "fish":
		script = fishScript(places)
	case "zsh":
		script = "#compdef dream\n" + listScript(places) + `_dream() {
  local -a found
  found=(${=$(_dream_list "${words[CURRENT]}" "${(@)words[2,CURRENT-1]}")})
  if (( $#found )); then compadd -- $found; else _files; fi
}
if [ "$funcstack[1]" = _dream ]; then _dream; else compdef _dream dream; fi
`
	default:
		script = listScript(places) + `_dream() {
  local now="${COMP_WORDS[COMP_CWORD]}"
  COMPREPLY=($(compgen -W "$(_dream_list "$now" "${COMP_WORDS[@]:1:COMP_CWORD-1}")" -- "$now"))
}
complete -o default -F _dream dream
`
	}
	_, err := fmt.Fprint(a.stdout, script)
	return err
}

// place is a command with what may follow it.
type place struct {
	path  string // "jobs list"; empty: the program
	words []choice
	flags []*kong.Flag
}

// choice is a word with what it means.
type choice struct{ word, help string }

// completionPlaces are n and the commands below it.
func completionPlaces(n *kong.Node, path string) []place {
	here := place{path: path, flags: slices.DeleteFunc(slices.Clone(n.Flags), func(f *kong.Flag) bool { return f.Hidden })}
	var below []place
	for _, c := range n.Children {
		if !c.Hidden {
			here.words = append(here.words, choice{c.Name, c.Help})
			below = append(below, completionPlaces(c, strings.TrimSpace(path+" "+c.Name))...)
		}
	}
	for _, p := range n.Positional {
		for _, v := range values(p) {
			here.words = append(here.words, choice{v, ""})
		}
	}
	return append([]place{here}, below...)
}

// values are those that a flag or argument is limited to.
func values(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return slices.DeleteFunc(v.EnumSlice(), func(s string) bool { return s == "" })
}

// listScript is a function for bash and zsh that prints the words that may follow; for
// none, a file may. Its arguments are the begun word and those between it and the program.
func listScript(places []place) string {
	var paths []string
	var flags, words, limited strings.Builder
	for _, p := range places {
		if p.path != "" {
			paths = append(paths, strconv.Quote(p.path))
		}
		var names, taking []string
		for _, f := range p.flags {
			names = append(names, "--"+f.Name)
			if f.IsBool() {
				continue
			}
			taken := fmt.Sprintf("%q", p.path+" --"+f.Name)
			if f.Short != 0 {
				taken += fmt.Sprintf("|%q", p.path+" -"+string(f.Short))
			}
			if v := values(f.Value); v != nil {
				fmt.Fprintf(&limited, "    %s) echo %s; return ;;\n", taken, strings.Join(v, " "))
			} else {
				taking = append(taking, taken)
			}
		}
		if taking != nil {
			fmt.Fprintf(&limited, "    %s) return ;;\n", strings.Join(taking, "|"))
		}
		if p.path != "" {
			names = append(names, "--help", "--config")
		}
		fmt.Fprintf(&flags, "      %q) echo %s ;;\n", p.path, strings.Join(names, " "))
		if p.words != nil {
			var list []string
			for _, w := range p.words {
				list = append(list, w.word)
			}
			fmt.Fprintf(&words, "      %q) echo %s ;;\n", p.path, strings.Join(list, " "))
		}
	}
	return `_dream_list() {
  local now="$1" at="" last="" word next
  shift
  for word in "$@"; do
    next="${at:+$at }$word" last="$word"
    case "$next" in
      ` + strings.Join(paths, "|") + `) at="$next" ;;
    esac
  done
  case "$at $last" in
    *" --config") return ;;
` + limited.String() + `  esac
  case "$now" in
    -*) case "$at" in
` + flags.String() + `    esac ;;
    *) case "$at" in
` + words.String() + `    esac ;;
  esac
}
`
}

func fishScript(places []place) string {
	var b strings.Builder
	b.WriteString("function __dream_at\n    set -l at ''\n    for word in (commandline -opc)[2..]\n        switch (string trim -- \"$at $word\")\n            case")
	for _, p := range places[1:] {
		fmt.Fprintf(&b, " %s", fishQuote(p.path))
	}
	b.WriteString("\n                set at (string trim -- \"$at $word\")\n        end\n    end\n    test \"$at\" = \"$argv\"\nend\n" +
		"complete -c dream -l help -d 'Show help.'\ncomplete -c dream -l config -r -d 'Configuration file (YAML).'\n")
	for _, p := range places {
		at := "complete -c dream -n " + fishQuote("__dream_at "+p.path)
		for _, w := range p.words {
			fmt.Fprintf(&b, "%s -f -a %s -d %s\n", at, w.word, fishQuote(w.help))
		}
		for _, f := range p.flags {
			if p.path == "" {
				continue // of every command: above
			}
			form := " -l " + f.Name
			if f.Short != 0 {
				form += " -s " + string(f.Short)
			}
			switch v := values(f.Value); {
			case v != nil:
				form += " -x -a " + fishQuote(strings.Join(v, " "))
			case !f.IsBool():
				form += " -r"
			}
			fmt.Fprintf(&b, "%s%s -d %s\n", at, form, fishQuote(f.Help))
		}
	}
	return b.String()
}

func fishQuote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
