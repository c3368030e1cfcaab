package discord

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"

	"dreamcad/bots"
	"dreamcad/bots/parse"
	"dreamcad/queue"
)

type commandOption struct {
	Type         int               `json:"type"`
	Name         string            `json:"name"`
	Description  string            `json:"description"`
	Localized    map[string]string `json:"description_localizations,omitempty"`
	Required     bool              `json:"required,omitempty"`
	Autocomplete bool              `json:"autocomplete,omitempty"`
	MinLength    int               `json:"min_length,omitempty"`
	MaxLength    int               `json:"max_length,omitempty"`
	MinValue     *int              `json:"min_value,omitempty"`
	MaxValue     *int64            `json:"max_value,omitempty"`
	Choices      []commandChoice   `json:"choices,omitempty"`
	Options      []commandOption   `json:"options,omitempty"`
}

type commandChoice struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type slashCommand struct {
	Type        int               `json:"type"`
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Localized   map[string]string `json:"description_localizations,omitempty"`
	Options     []commandOption   `json:"options,omitempty"`
	Permissions *string           `json:"default_member_permissions"`
	Contexts    []int             `json:"contexts"`
	Integration []int             `json:"integration_types"`
}

// The option types.
const (
	optSub     = 1
	optString  = 3
	optInteger = 4
	optBoolean = 5
	optUser    = 6
	optFile    = 11
)

// text describes something in English and in the languages that have the text.
func text(key string) (string, map[string]string) {
	en := bots.Lang("en").Say(key)
	others := map[string]string{}
	for lang, locales := range map[bots.Lang][]string{"de": {"de"}, "es": {"es-ES", "es-419"}} {
		if t := lang.Say(key); t != en {
			for _, l := range locales {
				others[l] = t
			}
		}
	}
	if len(others) == 0 {
		others = nil
	}
	return en, others
}

func opt(kind int, name string) commandOption {
	o := commandOption{Type: kind, Name: name}
	o.Description, o.Localized = text("option." + name)
	return o
}

func choices(values ...string) []commandChoice {
	out := make([]commandChoice, len(values))
	for i, v := range values {
		out[i] = commandChoice{v, v}
	}
	return out
}

// commands are the definitions that are registered. /dream stands alone: a
// command with subcommands could not take a prompt.
func (b *Bot) commands() []slashCommand {
	prompt := opt(optString, "prompt")
	prompt.MaxLength = parse.MaxPrompt
	kind, quality, seed := opt(optString, "kind"), opt(optString, "quality"), opt(optString, "seed")
	kind.Choices = choices("mesh", "views")
	quality.Choices = choices("draft", "standard", "high")
	if b.config.Qualities != nil {
		quality.Choices = nil
		for _, q := range b.config.Qualities {
			quality.Choices = append(quality.Choices, choices(string(q))...)
		}
	}
	seed.MaxLength = 16 // as text: integers arrive as doubles
	negative := opt(optString, "negative")
	negative.MaxLength = parse.MaxPrompt
	formats, model := opt(optString, "formats"), opt(optString, "model")
	formats.MaxLength, model.MaxLength = 20, 64
	if n := len(b.config.Models); n > 0 && n <= 25 {
		model.Choices = choices(b.config.Models...)
	}
	job := opt(optString, "job")
	job.Required, job.Autocomplete, job.MaxLength = true, true, 26
	adminJob := job
	adminJob.Autocomplete = false
	user := opt(optUser, "user")
	user.Required = true
	zero, most := 0, int64(1_000_000)
	limit, page := opt(optInteger, "limit"), opt(optInteger, "page")
	limit.MinValue, limit.MaxValue = &zero, &most
	one := 1
	page.MinValue = &one
	file := opt(optFile, "file")
	file.Required = true
	sub := func(name string, options ...commandOption) commandOption {
		o := commandOption{Type: optSub, Name: name, Options: options}
		o.Description, o.Localized = text("sub." + name)
		return o
	}
	list := []slashCommand{
		{Name: "dream", Options: []commandOption{prompt, kind, quality, seed, negative, formats, model, opt(optBoolean, "private")}},
		{Name: "jobs", Options: []commandOption{sub("list"), sub("show", job), sub("cancel", job)}},
		{Name: "history", Options: []commandOption{page}},
		{Name: "queue"}, {Name: "quota"}, {Name: "help"}, {Name: "privacy"}, {Name: "forget-me"},
		{Name: "ingest", Options: []commandOption{file}},
		{Name: "admin", Options: []commandOption{
			sub("pause"), sub("resume"), sub("drain"), sub("status"), sub("cancel", adminJob),
			sub("block", user), sub("unblock", user), sub("quota", user, limit),
		}},
	}
	admins := "0" // hidden from all but administrators; the service checks its own list
	for i := range list {
		c := &list[i]
		c.Type, c.Contexts, c.Integration = 1, []int{0, 1}, []int{0, 1}
		c.Description, c.Localized = text("command." + c.Name)
		if c.Name == "admin" {
			c.Permissions = &admins
		}
	}
	return list
}

// Register writes the command definitions, for set-ups without gateway. It goes
// on trying until Discord has them or refuses the token.
func (b *Bot) Register(ctx context.Context) error {
	for failures := 1; ctx.Err() == nil; failures++ {
		err := b.checkToken(ctx)
		if err == nil || errors.Is(err, errRevoked) {
			return err
		}
		b.log.Warn("the commands are not registered yet", "err", err)
		wait(ctx, failures)
	}
	return nil
}

const registeredKey = "bots/discord/commands/"

// register writes the definitions if they differ from those registered last:
// each write would reset what administrators allowed, and creates are counted.
func (b *Bot) register(ctx context.Context) error {
	body, err := json.Marshal(b.commands())
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	b.mu.Lock()
	app := b.appID
	b.mu.Unlock()
	r, err := b.store.Get(ctx, registeredKey+app)
	if err == nil && string(r.Value) == hash {
		return nil
	}
	if err != nil && queue.CodeOf(err) != queue.CodeNotFound {
		return err
	}
	err = b.rest.do(ctx, call{method: http.MethodPut, path: "/applications/" + app + "/commands", body: json.RawMessage(body)})
	if err != nil {
		return err
	}
	b.log.Info("registered the commands", "commands", len(b.commands()))
	_, err = b.store.Put(ctx, registeredKey+app, []byte(hash), queue.AnyVersion, 0)
	return err
}
