package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a script that completes subcommands and flags, made from the same
// definition as the help. Example: dream completion bash > /etc/bash_completion.d/dream
func (c *completionCmd) Run(a *app) error {
	table := map[string][]string{}
	collectCompletions(a.parser.Model.Node, "", table)
	var err error
	switch c.Shell {
	case "fish":
		err = writeFish(a, table)
	case "zsh":
		_, err = fmt.Fprintf(a.stdout, "#compdef dream\nautoload -U +X bashcompinit && bashcompinit\n%s", bashScript(table))
	default:
		_, err = fmt.Fprint(a.stdout, bashScript(table))
	}
	return err
}

// collectCompletions maps each command path to the words that may follow it.
func collectCompletions(n *kong.Node, path string, table map[string][]string) {
	words := []string{}
	for _, child := range n.Children {
		if child.Hidden {
			continue
		}
		words = append(words, child.Name)
		collectCompletions(child, strings.TrimSpace(path+" "+child.Name), table)
	}
	for _, f := range n.Flags {
		if !f.Hidden {
			words = append(words, "--"+f.Name)
		}
	}
	table[path] = words
}

func bashScript(table map[string][]string) string {
	var b strings.Builder
	b.WriteString("_dream() {\n  local path=\"\" word i\n  for ((i=1; i<COMP_CWORD; i++)); do\n" +
		"    word=${COMP_WORDS[i]}\n    case \"$word\" in -*) ;; *) path=\"${path:+$path }$word\" ;; esac\n  done\n  local words\n  case \"$path\" in\n")
	for _, path := range slices.Sorted(maps.Keys(table)) {
		fmt.Fprintf(&b, "    %q) words=%q ;;\n", path, strings.Join(table[path], " "))
	}
	b.WriteString("    *) return ;;\n  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -o default -F _dream dream\n")
	return b.String()
}

func writeFish(a *app, table map[string][]string) error {
	for _, path := range slices.Sorted(maps.Keys(table)) {
		condition := "__fish_use_subcommand"
		if path != "" {
			parts := strings.Fields(path)
			condition = "__fish_seen_subcommand_from " + parts[len(parts)-1]
		}
		for _, word := range table[path] {
			form := "-a " + word
			if long, ok := strings.CutPrefix(word, "--"); ok {
				form = "-l " + long
			}
			if _, err := fmt.Fprintf(a.stdout, "complete -c dream -n '%s' %s\n", condition, form); err != nil {
				return err
			}
		}
	}
	return nil
}
