package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// TestCompletion lets bash complete command lines; the last word of each is the begun one.
func TestCompletion(t *testing.T) {
	var script, errs bytes.Buffer
	if code := run([]string{"completion", "bash"}, nil, &script, &errs); code != exitDone {
		t.Fatalf("dream completion bash ends with %d: %s", code, &errs)
	}
	for _, c := range []struct{ line, want string }{
		{"dream jo", "jobs"},
		{"dream ops silence ", "list add remove"},
		{"dream --config x.yaml jobs ca", "cancel"},
		{"dream jobs list --s", "--status"},
		{"dream jobs list --status qu", "queued quarantined"},
		{"dream views a mug --seed 7 --g", "--guidance"}, // after arguments and values
		{"dream ingest --kind ", "views mesh"},
		{"dream completion ", "bash zsh fish"},
		{"dream batch watch --", "--json --help --config"},
		{"dream ingest ", ""}, // files
		{"dream mesh -o ", ""},
		{"dream config d", ""}, // hidden
	} {
		words := strings.Split(c.line, " ")
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, "'"+w+"'")
		}
		cmd := exec.Command("bash", "-c", script.String()+"\nCOMP_WORDS=("+strings.Join(quoted, " ")+") COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_dream\necho \"${COMPREPLY[*]}\"")
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%q completes to %q (%v), want %q", c.line, got, err, c.want)
		}
	}
}
