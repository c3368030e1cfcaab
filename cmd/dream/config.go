package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/goccy/go-yaml"

	"dreamcad/ops/rules"
	"dreamcad/queue"
)

// secret is a setting that is never printed.
type secret string

// String masks the value, so that no log line and no listing shows it.
func (s secret) String() string {
	if s == "" {
		return ""
	}
	return "********"
}

// settings are all settings of the program. The order of precedence is
// defaults, file, environment (DREAM_ and the path in capitals), flags. A
// secret can also be read from the file that its _file twin names.
type settings struct {
	Data    string          `yaml:"data" env:"DATA" help:"Folder for everything that is kept on this machine."`
	Queue   queueSettings   `yaml:"queue" envPrefix:"QUEUE_"`
	Storage storageSettings `yaml:"storage" envPrefix:"STORAGE_"`
	Models  modelSettings   `yaml:"models" envPrefix:"MODELS_"`
	Worker  workerSettings  `yaml:"worker" envPrefix:"WORKER_"`
	Web     webSettings     `yaml:"web" envPrefix:"WEB_"`
	Chat    chatSettings    `yaml:"chat" envPrefix:"CHAT_"`
	Discord discordSettings `yaml:"discord" envPrefix:"DISCORD_"`
	Slack   slackSettings   `yaml:"slack" envPrefix:"SLACK_"`
	Metrics metricsSettings `yaml:"metrics" envPrefix:"METRICS_"`
	Log     logSettings     `yaml:"log" envPrefix:"LOG_"`
	Ops     opsSettings     `yaml:"ops" envPrefix:"OPS_"`
}

type queueSettings struct {
	URL string `yaml:"url" env:"URL" help:"sqlite:///PATH, redis://HOST:PORT/DB, rediss://… (Sentinel and Cluster forms too); empty: SQLite in the data folder."`
}

type storageSettings struct {
	URL           string        `yaml:"url" env:"URL" help:"file:///PATH or s3://BUCKET/PREFIX?endpoint=…&region=…; empty: a folder in the data folder."`
	Keep          time.Duration `yaml:"keep" env:"KEEP" help:"How long results are kept."`
	KeepBulk      time.Duration `yaml:"keep_bulk" env:"KEEP_BULK" help:"The same for jobs of prompt files; 0: as storage.keep."`
	MinFree       int64         `yaml:"min_free" env:"MIN_FREE" help:"MB that must stay free on the disk of a file:// storage and of the worker."`
	AccessKey     string        `yaml:"access_key" env:"ACCESS_KEY" help:"S3 access key; empty: AWS_ACCESS_KEY_ID, the shared credentials file or the machine's role."`
	SecretKey     secret        `yaml:"secret_key" env:"SECRET_KEY" help:"S3 secret key."`
	SecretKeyFile string        `yaml:"secret_key_file" env:"SECRET_KEY_FILE" help:"File that holds storage.secret_key."`
	SessionToken  secret        `yaml:"session_token" env:"SESSION_TOKEN" help:"S3 session token of temporary keys."`
	LinkKeys      secret        `yaml:"link_keys" env:"LINK_KEYS" help:"ID:SECRET,… that sign download links; the first signs new ones. Processes that share links need the same. Empty: made in the data folder."`
	LinkKeysFile  string        `yaml:"link_keys_file" env:"LINK_KEYS_FILE" help:"File that holds storage.link_keys."`
}

type modelSettings struct {
	Dir       string `yaml:"dir" env:"DIR" help:"Folder of pulled models; empty: models in the data folder."`
	BackupDir string `yaml:"backup_dir" env:"BACKUP_DIR" help:"Second place to look for a model file before downloading it."`
}

type workerSettings struct {
	Device    string `yaml:"device" env:"DEVICE" help:"auto, cpu or cuda:N."`
	Batch     int    `yaml:"batch" env:"BATCH" help:"Jobs whose pictures are made at once; 0: 4 on a card with room for them, 1 on a processor."`
	GuardGPUs string `yaml:"guard_gpus" env:"GUARD_GPUS" help:"Whose sensors pause this worker: own, all or a list of GPU ids."`
	Supervise bool   `yaml:"supervise" env:"SUPERVISE" help:"Run dream worker and dream up as a child process, whose death is told to the queue with its signal and the end of its log."`
}

type webSettings struct {
	Listen    string `yaml:"listen" env:"LISTEN" help:"Address of the web console; anything wider than this machine needs web.token."`
	PublicURL string `yaml:"public_url" env:"PUBLIC_URL" help:"Address under which people reach the console, for links in chat."`
	Token     secret `yaml:"token" env:"TOKEN" help:"Password of the console (user name: anything)."`
	TokenFile string `yaml:"token_file" env:"TOKEN_FILE" help:"File that holds web.token."`
}

type chatSettings struct {
	Listen        string          `yaml:"listen" env:"LISTEN" help:"Address for signed requests of the platforms (/discord, /slack); empty: gateway and Socket Mode only."`
	UserDay       int             `yaml:"user_day" env:"USER_DAY" help:"Jobs a user may start in a day; 0: no limit."`
	SpaceDay      int             `yaml:"space_day" env:"SPACE_DAY" help:"Jobs a server or workspace may start in a day; 0: no limit."`
	TotalDay      int             `yaml:"total_day" env:"TOTAL_DAY" help:"Jobs in a day in all; 0: no limit."`
	UserLive      int             `yaml:"user_live" env:"USER_LIVE" help:"Jobs of a user that may wait or run at a time; 0: only the queue's own limit."`
	SpaceLive     int             `yaml:"space_live" env:"SPACE_LIVE" help:"The same for a server or workspace; 0: no limit."`
	TotalLive     int             `yaml:"total_live" env:"TOTAL_LIVE" help:"The same in all; 0: only the queue's own limit."`
	Cooldown      time.Duration   `yaml:"cooldown" env:"COOLDOWN" help:"Time between two jobs of a user; 0: none."`
	EditEvery     time.Duration   `yaml:"edit_every" env:"EDIT_EVERY" help:"Least time between two edits of a progress message; 0: 5s."`
	Admins        []string        `yaml:"admins" env:"ADMINS" help:"Who may use /admin: platform:id of users (discord:123, slack:U1, web:console), role:id of Discord roles."`
	Ingest        []string        `yaml:"ingest" env:"INGEST" help:"Who may send prompt files, besides admins; same form."`
	Qualities     []queue.Quality `yaml:"qualities" env:"QUALITIES" help:"Qualities that are offered, in rising order, of draft, standard, high; empty: draft. Workers must be able to make them."`
	Models        []string        `yaml:"models" env:"MODELS" help:"Models that people may name; empty: any, also one that no worker has."`
	AdultChannels []string        `yaml:"adult_channels" env:"ADULT_CHANNELS" help:"Channels (platform:id) in which the adult classes of the block list do not hold; age-restricted: all that Discord marks so."`
	BlockFile     string          `yaml:"block_file" env:"BLOCK_FILE" help:"File of words and /patterns/ that prompts may not hold; read again when it changes."`
}

type discordSettings struct {
	Token      secret `yaml:"token" env:"TOKEN" help:"Bot token."`
	TokenFile  string `yaml:"token_file" env:"TOKEN_FILE" help:"File that holds discord.token."`
	OpsChannel string `yaml:"ops_channel" env:"OPS_CHANNEL" help:"Channel id for alerts."`
	APIURL     string `yaml:"api_url" env:"API_URL" help:"Base address of the REST API (proxies, tests)."`
	GatewayURL string `yaml:"gateway_url" env:"GATEWAY_URL" help:"Address of the gateway; empty: what the API names."`
	PublicKey  string `yaml:"public_key" env:"PUBLIC_KEY" help:"Application's public key; when set, interactions come over HTTP (chat.listen) and not by gateway."`
}

type slackSettings struct {
	BotToken          secret `yaml:"bot_token" env:"BOT_TOKEN" help:"Bot token, xoxb-…"`
	BotTokenFile      string `yaml:"bot_token_file" env:"BOT_TOKEN_FILE" help:"File that holds slack.bot_token."`
	AppToken          secret `yaml:"app_token" env:"APP_TOKEN" help:"App-level token for Socket Mode, xapp-…"`
	AppTokenFile      string `yaml:"app_token_file" env:"APP_TOKEN_FILE" help:"File that holds slack.app_token."`
	SigningSecret     secret `yaml:"signing_secret" env:"SIGNING_SECRET" help:"Secret that signs HTTP requests from Slack."`
	SigningSecretFile string `yaml:"signing_secret_file" env:"SIGNING_SECRET_FILE" help:"File that holds slack.signing_secret."`
	OpsChannel        string `yaml:"ops_channel" env:"OPS_CHANNEL" help:"Channel id for alerts."`
	APIURL            string `yaml:"api_url" env:"API_URL" help:"Base address of the Web API (proxies, tests)."`
}

type metricsSettings struct {
	Listen string `yaml:"listen" env:"LISTEN" help:"Address of /metrics, /healthz and /readyz; empty: none."`
}

type logSettings struct {
	Level  string   `yaml:"level" env:"LEVEL" help:"debug, info, warn or error."`
	Format string   `yaml:"format" env:"FORMAT" help:"text, json or auto (text on a terminal)."`
	File   string   `yaml:"file" env:"FILE" help:"Rotating log file (10 files of 10 MB, older ones gzipped); further processes with the same setting write dream.2.log and so on. Empty: none."`
	Places []string `yaml:"places" env:"PLACES" help:"Other log files and folders (their *.log and *.log.gz) that dream logs looks into."`
	// HidePrompts keeps what people asked for out of the log.
	HidePrompts bool `yaml:"hide_prompts" env:"HIDE_PROMPTS" help:"Keep prompts out of the log."`
}

type opsSettings struct {
	Every                 time.Duration `yaml:"every" env:"EVERY" help:"How often sensors are read."`
	ServersEvery          time.Duration `yaml:"servers_every" env:"SERVERS_EVERY" help:"How often servers are asked, the queue is looked at and a sign of life is given."`
	MetricsEvery          time.Duration `yaml:"metrics_every" env:"METRICS_EVERY" help:"How often the log shows their figures while something is made."`
	GPUWarm               float64       `yaml:"gpu_warm" env:"GPU_WARM" help:"°C above which the worker is slowed down; it settles 3 °C below."`
	GPUHot                float64       `yaml:"gpu_hot" env:"GPU_HOT" help:"°C above which the worker saves and waits."`
	GPUMargin             float64       `yaml:"gpu_margin" env:"GPU_MARGIN" help:"°C before a card's own slowdown at which the worker saves and waits."`
	VRAM                  float64       `yaml:"vram" env:"VRAM" help:"Percent of a card's memory above which no new work is taken."`
	Memory                float64       `yaml:"memory" env:"MEMORY" help:"Percent of the memory above which an alert is sent."`
	Disk                  float64       `yaml:"disk" env:"DISK" help:"Percent of a disk above which an alert is sent; not above ops.disk_refuse, which it follows when only that is set."`
	DiskRefuse            float64       `yaml:"disk_refuse" env:"DISK_REFUSE" help:"Percent of a disk above which no new work is taken; not below ops.disk, which it follows when only that is set."`
	ServerSlow            time.Duration `yaml:"server_slow" env:"SERVER_SLOW" help:"Answer time of queue and storage above which an alert is sent."`
	QueueAge              time.Duration `yaml:"queue_age" env:"QUEUE_AGE" help:"Wait of the oldest interactive job above which an alert is sent."`
	Outbox                float64       `yaml:"outbox" env:"OUTBOX" help:"Events that a bot has not read above which an alert is sent."`
	OutboxAge             time.Duration `yaml:"outbox_age" env:"OUTBOX_AGE" help:"Wait of the oldest message for a chat platform above which an alert is sent."`
	WorkerLost            time.Duration `yaml:"worker_lost" env:"WORKER_LOST" help:"Silence of a worker above which it counts as lost."`
	WorkerGone            time.Duration `yaml:"worker_gone" env:"WORKER_GONE" help:"Silence of a lost worker after which it is no longer expected."`
	NoProgress            time.Duration `yaml:"no_progress" env:"NO_PROGRESS" help:"Standstill of a running job above which an alert is sent."`
	FailureRate           float64       `yaml:"failure_rate" env:"FAILURE_RATE" help:"Percent of the jobs of ops.failure_window that fail above which an alert is sent."`
	FailureWindow         time.Duration `yaml:"failure_window" env:"FAILURE_WINDOW" help:"Time over which failures are counted."`
	Rules                 []string      `yaml:"rules" env:"RULES" help:"Changes to rules: CODE and any of fire=X clear=X hold=T clear_hold=T severity=info|warning|critical off (dream ops rules lists them)."`
	Webhook               secret        `yaml:"webhook" env:"WEBHOOK" help:"URL that gets each alert as JSON by POST."`
	WebhookToken          secret        `yaml:"webhook_token" env:"WEBHOOK_TOKEN" help:"Bearer token for ops.webhook."`
	WebhookTokenFile      string        `yaml:"webhook_token_file" env:"WEBHOOK_TOKEN_FILE" help:"File that holds ops.webhook_token."`
	Alertmanager          secret        `yaml:"alertmanager" env:"ALERTMANAGER" help:"Base URL of a Prometheus Alertmanager that gets each alert (API version 2)."`
	AlertmanagerToken     secret        `yaml:"alertmanager_token" env:"ALERTMANAGER_TOKEN" help:"Bearer token for ops.alertmanager."`
	AlertmanagerTokenFile string        `yaml:"alertmanager_token_file" env:"ALERTMANAGER_TOKEN_FILE" help:"File that holds ops.alertmanager_token."`
	Again                 time.Duration `yaml:"again" env:"AGAIN" help:"Least time between two messages that the same condition has begun."`
}

// defaultOps are the thresholds of package rules.
func defaultOps() opsSettings {
	l := rules.DefaultLimits()
	return opsSettings{Again: 5 * time.Minute, Every: time.Second, ServersEvery: 10 * time.Second, MetricsEvery: 30 * time.Second, GPUWarm: l.GPUWarm, GPUHot: l.GPUHot, GPUMargin: l.GPUMargin, VRAM: l.VRAM,
		Memory: l.Memory, Disk: l.Disk, DiskRefuse: l.DiskRefuse, ServerSlow: l.ServerSlow, QueueAge: l.QueueAge, Outbox: l.OutboxDepth,
		OutboxAge: l.OutboxAge, WorkerLost: l.WorkerLost, WorkerGone: l.WorkerGone, NoProgress: l.NoProgress, FailureRate: l.FailureRate, FailureWindow: l.FailureWindow}
}

// check refuses thresholds that contradict each other.
func (s *opsSettings) check() error {
	var errs []error
	if s.Every < 100*time.Millisecond || s.MetricsEvery < s.Every {
		errs = append(errs, fmt.Errorf("ops.every %v must be at least 100ms and at most ops.metrics_every %v", s.Every, s.MetricsEvery))
	}
	if s.Again <= 0 {
		errs = append(errs, fmt.Errorf("ops.again %v must be a positive time", s.Again))
	}
	if s.ServersEvery < 100*time.Millisecond || s.WorkerLost < 3*s.ServersEvery {
		errs = append(errs, fmt.Errorf("ops.worker_lost %v must be at least three times ops.servers_every %v, and that 100ms", s.WorkerLost, s.ServersEvery))
	}
	if s.WorkerGone < s.WorkerLost+2*s.ServersEvery {
		errs = append(errs, fmt.Errorf("ops.worker_gone %v must be longer than ops.worker_lost %v by at least two of ops.servers_every %v", s.WorkerGone, s.WorkerLost, s.ServersEvery))
	}
	if !(s.GPUWarm > 0 && s.GPUHot > s.GPUWarm && s.GPUHot < 200) { // NaN is refused too
		errs = append(errs, fmt.Errorf("ops.gpu_hot %g must be above ops.gpu_warm %g, and both temperatures of a card", s.GPUHot, s.GPUWarm))
	}
	if !(s.GPUMargin >= 0 && s.GPUMargin < 100) {
		errs = append(errs, fmt.Errorf("ops.gpu_margin %g is not a difference of temperatures", s.GPUMargin))
	}
	if !(s.Outbox > 0 && s.Outbox < 1e12) {
		errs = append(errs, fmt.Errorf("ops.outbox %g is not a number of events", s.Outbox))
	}
	for name, v := range map[string]float64{"vram": s.VRAM, "memory": s.Memory, "disk": s.Disk, "disk_refuse": s.DiskRefuse, "failure_rate": s.FailureRate} {
		if !(v > 0 && v <= 100) {
			errs = append(errs, fmt.Errorf("ops.%s %g is not a percentage", name, v))
		}
	}
	if s.DiskRefuse < s.Disk {
		errs = append(errs, fmt.Errorf("ops.disk_refuse %g must not be below ops.disk %g: people are told before work is refused", s.DiskRefuse, s.Disk))
	}
	if _, err := s.rules(); err != nil {
		errs = append(errs, fmt.Errorf("ops.rules: %w", err))
	}
	return errors.Join(errs...)
}

// defaults returns the settings before any file, variable or flag.
func defaults() settings {
	return settings{
		Data:    defaultDataDir(),
		Storage: storageSettings{Keep: 720 * time.Hour, MinFree: 1024},
		Worker:  workerSettings{Device: "auto", GuardGPUs: "own", Supervise: true},
		Web:     webSettings{Listen: "127.0.0.1:7860"},
		Log:     logSettings{Level: "info", Format: "auto"},
		Ops:     defaultOps(),
	}
}

// defaultDataDir is the user's data folder (XDG base directory specification).
func defaultDataDir() string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "dreamcad")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "dreamcad-data"
	}
	return filepath.Join(home, ".local", "share", "dreamcad")
}

// loadedConfig is the effective settings and where each came from.
type loadedConfig struct {
	settings
	source map[string]string // setting path → default, file or environment
	path   string            // of the file; empty: none
}

// loadConfig applies the layers. The error names the file and the line, or the
// variable, that is at fault.
func loadConfig(path string, environ []string) (*loadedConfig, error) {
	c := &loadedConfig{settings: defaults(), source: map[string]string{}, path: path}
	before := flatten(c.settings)
	for key := range before {
		c.source[key] = "default"
	}
	mark := func(layer string, set func(key string) bool) {
		after := flatten(c.settings)
		for key, value := range after {
			if before[key] != value || set(key) {
				c.source[key] = layer
			}
		}
		before = after
	}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		var tree map[string]any
		if err := yaml.Unmarshal(text, &tree); err != nil {
			return nil, fmt.Errorf("read configuration %q: %s", path, yaml.FormatError(err, false, true))
		}
		if err := yaml.UnmarshalWithOptions(text, &c.settings, yaml.Strict()); err != nil {
			written := func(key string) (string, bool) {
				value, there := inTree(tree, key)
				s, isText := value.(string)
				return s, there && isText
			}
			if wrong := wrongValues(written, func(key string) string { return key }); wrong != nil {
				return nil, fmt.Errorf("read configuration %q: %w", path, wrong)
			}
			return nil, fmt.Errorf("read configuration %q: %s", path, yaml.FormatError(err, false, true))
		}
		mark("file "+path, func(key string) bool {
			_, there := inTree(tree, key)
			return there
		})
	}
	variables := env.ToMap(environ)
	if err := env.ParseWithOptions(&c.settings, env.Options{Prefix: "DREAM_", Environment: variables}); err != nil {
		written := func(key string) (string, bool) { return variables[variable(key)], variables[variable(key)] != "" }
		if wrong := wrongValues(written, variable); wrong != nil {
			return nil, wrong
		}
		return nil, fmt.Errorf("read configuration from the environment: %w", err)
	}
	mark("environment", func(key string) bool { return variables[variable(key)] != "" })
	if err := c.readSecretFiles(); err != nil {
		return nil, err
	}
	mark("secret file", func(string) bool { return false })
	c.follow()
	return c, c.check()
}

// variable is the name of a setting in the environment.
func variable(path string) string {
	return "DREAM_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// follow lets the default of one of the two thresholds of a disk give way to the
// other, so that nobody who sets one has to set both.
func (c *loadedConfig) follow() {
	if c.Ops.DiskRefuse >= c.Ops.Disk {
		return
	}
	switch {
	case c.source["ops.disk"] == "default":
		c.Ops.Disk, c.source["ops.disk"] = c.Ops.DiskRefuse, "follows ops.disk_refuse"
	case c.source["ops.disk_refuse"] == "default":
		c.Ops.DiskRefuse, c.source["ops.disk_refuse"] = c.Ops.Disk, "follows ops.disk"
	}
}

// readSecretFiles fills each secret that is empty from the file its twin names.
func (c *loadedConfig) readSecretFiles() error {
	twins := []struct {
		name string
		file string
		into *secret
	}{
		{"storage.secret_key_file", c.Storage.SecretKeyFile, &c.Storage.SecretKey},
		{"storage.link_keys_file", c.Storage.LinkKeysFile, &c.Storage.LinkKeys},
		{"web.token_file", c.Web.TokenFile, &c.Web.Token},
		{"discord.token_file", c.Discord.TokenFile, &c.Discord.Token},
		{"ops.webhook_token_file", c.Ops.WebhookTokenFile, &c.Ops.WebhookToken},
		{"ops.alertmanager_token_file", c.Ops.AlertmanagerTokenFile, &c.Ops.AlertmanagerToken},
		{"slack.bot_token_file", c.Slack.BotTokenFile, &c.Slack.BotToken},
		{"slack.app_token_file", c.Slack.AppTokenFile, &c.Slack.AppToken},
		{"slack.signing_secret_file", c.Slack.SigningSecretFile, &c.Slack.SigningSecret},
	}
	for _, t := range twins {
		if t.file == "" || *t.into != "" {
			continue
		}
		text, err := os.ReadFile(t.file)
		if err != nil {
			return fmt.Errorf("read %s: %w", t.name, err)
		}
		*t.into = secret(strings.TrimSpace(string(text)))
	}
	return nil
}

// check refuses settings that cannot work, one sentence each.
func (c *loadedConfig) check() error {
	var errs []error
	if c.Data == "" {
		errs = append(errs, errors.New("data must name a folder"))
	}
	if c.Storage.Keep < time.Hour {
		errs = append(errs, fmt.Errorf("storage.keep %v is shorter than an hour", c.Storage.Keep))
	}
	if c.Storage.KeepBulk != 0 && c.Storage.KeepBulk < time.Hour {
		errs = append(errs, fmt.Errorf("storage.keep_bulk %v is shorter than an hour", c.Storage.KeepBulk))
	}
	if c.Storage.MinFree < 0 {
		errs = append(errs, fmt.Errorf("storage.min_free %d is negative", c.Storage.MinFree))
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		errs = append(errs, fmt.Errorf("log.level %q is not debug, info, warn or error", c.Log.Level))
	}
	if !slices.Contains([]string{"auto", "text", "json"}, c.Log.Format) {
		errs = append(errs, fmt.Errorf("log.format %q is not auto, text or json", c.Log.Format))
	}
	if !isLoopback(c.Web.Listen) && c.Web.Token == "" {
		errs = append(errs, fmt.Errorf("web.listen %q is reachable from other machines: set web.token", c.Web.Listen))
	}
	if c.Worker.Batch < 0 || c.Worker.Batch > 16 {
		errs = append(errs, fmt.Errorf("worker.batch %d is outside 0 to 16", c.Worker.Batch))
	}
	errs = append(errs, c.Ops.check())
	return errors.Join(errs...)
}

// dataFile is a path below the data folder, whose parent is created.
func (c *loadedConfig) dataFile(elem ...string) (string, error) {
	path := filepath.Join(append([]string{c.Data}, elem...)...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("create the data folder: %w", err)
	}
	return path, nil
}

// flatten lists every leaf setting as path → text, secrets masked.
func flatten(s settings) map[string]string {
	out := map[string]string{}
	walkSettings(reflect.ValueOf(s), "", func(path string, _ reflect.StructField, v reflect.Value) {
		out[path] = settingText(v)
	})
	return out
}

// settingText shows a value as people write it: 720h rather than 720h0m0s.
func settingText(v reflect.Value) string {
	d, ok := v.Interface().(time.Duration)
	if !ok {
		return fmt.Sprint(v.Interface())
	}
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// walkSettings calls visit for each leaf in the order of the struct.
func walkSettings(v reflect.Value, prefix string, visit func(path string, f reflect.StructField, v reflect.Value)) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		path := name
		if prefix != "" {
			path = prefix + "." + name
		}
		if f.Type.Kind() == reflect.Struct {
			walkSettings(v.Field(i), path, visit)
			continue
		}
		visit(path, f, v.Field(i))
	}
}
