package main

import (
	"strings"

	"github.com/alecthomas/kong"
)

// examples end the help of each command; those of a group are its commands' first ones.
var examples = map[string][]string{
	"up":    {"dream up", "dream up --listen 127.0.0.1:8080 --data ./dreams", "dream --config dream.yaml up"},
	"views": {"dream views a ceramic coffee mug", `dream views "a red chair" -o chair --seed 7 --report`},
	"mesh":  {"dream mesh a ceramic coffee mug", `dream mesh "a red chair" -o chair --seed 7 --formats glb,stl`},

	"ingest":        {"dream ingest chairs.csv --quality draft --wait", "dream ingest chairs.csv --dry-run --rejects bad.jsonl", "dream ingest - < prompts.txt"},
	"batch list":    {"dream batch list", "dream batch list --user cli:ana --json"},
	"batch status":  {"dream batch status", "dream batch status chairs.csv"},
	"batch watch":   {"dream batch watch", "dream batch watch chairs.csv"},
	"batch results": {"dream batch results chairs.csv -o chairs.jsonl", "dream batch results chairs.csv --format csv --no-links"},
	"batch pause":   {"dream batch pause chairs.csv"},
	"batch resume":  {"dream batch resume chairs.csv"},
	"batch cancel":  {"dream batch cancel chairs.csv"},
	"batch retry":   {"dream batch retry chairs.csv"},

	"bot run":      {"DREAM_DISCORD_TOKEN=… DREAM_QUEUE_URL=redis://queue:6379 dream bot"},
	"bot check":    {"dream bot check"},
	"bot manifest": {"dream bot manifest > slack-manifest.yaml", "dream bot manifest --url https://dreams.example.org/slack"},
	"worker": {"dream worker", "dream worker --device cuda:1",
		"DREAM_QUEUE_URL=redis://queue:6379 DREAM_STORAGE_URL='s3://dreams?endpoint=http://s3:7070' dream worker"},

	"jobs list":          {"dream jobs list", "dream jobs list --status queued,leased -n 10"},
	"jobs show":          {"dream jobs show 7K3QXN"},
	"jobs cancel":        {"dream jobs cancel 7K3QXN"},
	"jobs retry":         {"dream jobs retry 7K3QXN"},
	"jobs requeue":       {"dream jobs requeue 7K3QXN"},
	"jobs unpublish":     {"dream jobs unpublish 7K3QXN", "dream jobs unpublish 7K3QXN --undo"},
	"queue stats":        {"dream queue stats", "dream queue stats --audit --json"},
	"queue pause":        {`dream queue pause --class bulk --why "the room is warm"`, "dream queue pause"},
	"queue resume":       {"dream queue resume --class bulk"},
	"queue drain":        {"dream queue drain gpu-host-3/cuda", "dream queue drain gpu-host-3/cuda --undo"},
	"queue dead":         {"dream queue dead"},
	"queue quarantine":   {"dream queue quarantine", "dream queue quarantine 7K3QXN", "dream queue quarantine --release 7K3QXN"},
	"storage check":      {"dream storage check"},
	"storage gc":         {"dream storage gc --dry-run", "dream storage gc"},
	"storage du":         {"dream storage du"},
	"doctor":             {"dream doctor", "dream doctor --quick --json", "dream doctor --fix --report doctor.md"},
	"logs":               {"dream logs 7K3QXN"},
	"monitor":            {"dream monitor", "dream monitor --since 24h --svg day.svg", "dream monitor --local"},
	"ops rules":          {"dream ops rules"},
	"ops silence list":   {"dream ops silence list"},
	"ops silence add":    {`dream ops silence add gpu_warm --for 2h --reason "the air conditioning is being repaired"`, `dream ops silence add 'gpu_*/host7/*' --for 30m --reason "new fans"`},
	"ops silence remove": {"dream ops silence remove gpu_warm"},
	"ops forget":         {"dream ops forget gpu-host-3/cuda", "dream ops forget slack"},
	"ops test-alert":     {"dream ops test-alert"},
	"bench mesh":         {"dream bench mesh -o meshes --only chair"},
	"bench jobs":         {"dream bench jobs --jobs 8 --at 1,2"},
	"bench shapes":       {"dream bench shapes inference/field/shapes/shapes.json"},
	"init":               {"dream init", "dream init /etc/dreamcad/dream.yaml --set queue.url=redis://queue:6379 --set 'storage.url=s3://dreams?endpoint=http://s3:7070'"},
	"config check":       {"dream --config dream.yaml config check"},
	"config show":        {"dream config show"},
	"models list":        {"dream models list"},
	"models pull":        {"dream models pull mvdream-sd21", "dream models pull mvdream-sd21 --from ~/Downloads/sd-v2.1-base-4view.pt"},
	"models verify":      {"dream models verify mvdream-sd21"},
	"models selftest":    {"dream models selftest mini"},
	"models convert":     {"dream models convert mvdream-sd21 --replace"},
	"models rm":          {"dream models rm mvdream-sd21"},
	"version":            {"dream version"},
	"completion":         {"source <(dream completion bash)", "dream completion zsh > ~/.zfunc/_dream", "dream completion fish > ~/.config/fish/completions/dream.fish"},
}

// addExamples completes the help of n's commands and returns the examples of n itself.
func addExamples(n *kong.Node, path string) []string {
	own := examples[path]
	for _, c := range n.Children {
		of := addExamples(c, strings.TrimSpace(path+" "+c.Name))
		if !c.Hidden && len(of) > 0 {
			own = append(own, of[0])
		}
	}
	if path != "" && len(own) > 0 {
		n.Detail = strings.TrimSpace(n.Detail + "\n\nExamples:\n\n  " + strings.Join(own, "\n  "))
	}
	return own
}
