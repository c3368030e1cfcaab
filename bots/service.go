package bots

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"dreamcad/bots/limits"
	"dreamcad/bots/parse"
	"dreamcad/queue"
	"dreamcad/storage"
)

// Jobs is what the service needs of the queue.
type Jobs interface {
	queue.Submitter
	queue.Reader
	queue.Operator
	queue.State
	queue.Quotas
}

// Ingester takes prompt files (package queue/ingest behind it). Lines whose
// texts check refuses are left out. The sentence tells what became of the file.
// An error that is a *queue.Error is shown.
type Ingester interface {
	Ingest(ctx context.Context, name string, file io.Reader, who queue.Requester, where queue.Origin, check func(text string) error) (sentence string, err error)
}

// Config says what the service offers.
type Config struct {
	Limits limits.Config
	// Qualities are those that are offered, in rising order; empty: draft.
	Qualities []queue.Quality
	// AdultPlaces are the channels ("platform:id") in which the block list's
	// adult classes do not hold; AgeRestricted stands for all channels that
	// a platform marks as such. Empty: they hold everywhere.
	AdultPlaces []string
	// Models that may be named; empty: any name is passed on.
	Models []string
	// MaxIngest bounds prompt files in bytes; 0 is 8 MiB.
	MaxIngest int64
	// Keep is how long results are kept, for /privacy.
	Keep time.Duration
	// Patience bounds the work before the answer; 0 is 2.2 s, under the 3 s
	// that Discord and Slack allow.
	Patience time.Duration
}

var knownQualities = []queue.Quality{queue.Draft, queue.Standard, queue.High}

// AgeRestricted in Config.AdultPlaces stands for all channels that a platform
// marks as age-restricted.
const AgeRestricted = "age-restricted"

// Service executes commands. All methods are safe for concurrent use.
type Service struct {
	config Config
	jobs   Jobs
	store  storage.Store // nil: results cannot be deleted
	ingest Ingester      // nil: prompt files are refused
	words  *limits.Words
	render *Renderer // nil: results are not shown again
	log    *slog.Logger
	now    func() time.Time
}

// New makes a service. store and ingest may be nil.
func New(c Config, jobs Jobs, store storage.Store, ingest Ingester, log *slog.Logger) (*Service, error) {
	if len(c.Qualities) == 0 {
		c.Qualities = []queue.Quality{queue.Draft}
	}
	for _, q := range c.Qualities {
		if !slices.Contains(knownQualities, q) {
			return nil, fmt.Errorf("chat.qualities: %q is none of draft, standard and high", q)
		}
	}
	if c.MaxIngest == 0 {
		c.MaxIngest = 8 << 20
	}
	if c.Keep == 0 {
		c.Keep = 720 * time.Hour
	}
	if c.Patience == 0 {
		c.Patience = 2200 * time.Millisecond
	}
	words, err := limits.Open(c.Limits.BlockFile)
	if err != nil {
		return nil, err
	}
	return &Service{config: c, jobs: jobs, store: store, ingest: ingest, words: words, log: log, now: time.Now}, nil
}

// Qualities are those that are offered, in rising order.
func (s *Service) Qualities() []queue.Quality { return s.config.Qualities }

// Present lets the service show results again, by /jobs show and /history.
func (s *Service) Present(r *Renderer) { s.render = r }

// Line executes one typed line, as the console takes it; c carries the person
// and the place, its Command part is overwritten.
func (s *Service) Line(ctx context.Context, line string, c Command) Reply {
	parsed, err := parse.Line(line)
	if err != nil {
		return s.refuse(c, err)
	}
	c.Command = parsed
	return s.Execute(ctx, c)
}

// Execute does what c asks within Config.Patience and answers. It never
// panics and never returns an empty text.
func (s *Service) Execute(ctx context.Context, c Command) Reply {
	// Deleting and reading a file may take longer; their adapters answer first.
	if c.Verb != parse.Ingest && c.Verb != parse.ForgetMe && c.Verb != parse.Delete {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.config.Patience)
		defer cancel()
	}
	reply, err := s.execute(ctx, c)
	if err != nil {
		s.logFailure(c, err)
		return s.refuse(c, err)
	}
	return reply
}

func (s *Service) execute(ctx context.Context, c Command) (Reply, error) {
	switch c.Verb {
	case parse.Dream:
		return s.dream(ctx, c)
	case parse.Vary, parse.Refine, parse.Retry:
		return s.again(ctx, c)
	case parse.List:
		return s.list(ctx, c)
	case parse.Show:
		return s.show(ctx, c)
	case parse.Cancel:
		return s.cancel(ctx, c)
	case parse.Delete:
		return s.delete(ctx, c)
	case parse.History:
		return s.history(ctx, c)
	case parse.Queue:
		return s.queue(ctx, c)
	case parse.Quota:
		return s.quota(ctx, c)
	case parse.Help:
		return s.private(c.lang().Say("help", helpPrefix(c.From.Platform))), nil
	case parse.Privacy:
		return s.private(c.lang().Say("privacy", int(s.config.Keep.Hours()/24), helpPrefix(c.From.Platform))), nil
	case parse.ForgetMe:
		return s.forget(ctx, c)
	case parse.Ingest:
		return s.ingestFile(ctx, c)
	case parse.Admin:
		return s.admin(ctx, c)
	case parse.Ack, parse.Silence:
		return s.alert(ctx, c)
	}
	return Reply{}, &parse.Error{Code: "unknown-command", Args: []any{string(c.Verb)}}
}

func (c *Command) lang() Lang { return Language(c.Locale) }

// helpPrefix is how a command begins: in Slack the verbs are words of /dream.
func helpPrefix(platform string) string {
	if platform == "slack" {
		return "/dream "
	}
	return "/"
}

// refusal is an error that already is the sentence to show.
type refusal string

func (r refusal) Error() string { return string(r) }

func (s *Service) refuse(c Command, err error) Reply { return Complaint(c, err) }

// Complaint is the reply to a command that could not be read or executed.
func Complaint(c Command, err error) Reply {
	text := ""
	if r, ok := errors.AsType[refusal](err); ok {
		text = string(r)
	} else if errors.Is(err, context.DeadlineExceeded) {
		text = c.lang().Say("error.unavailable")
	} else {
		text = c.lang().complain(err)
	}
	return Reply{Message: Message{Text: text, Tone: Warn}, Refused: true, Private: true}
}

func (s *Service) private(text string) Reply {
	return Reply{Message: Message{Text: text}, Private: true}
}

// logFailure tells operators what people are not told. Wrong usage is no failure.
func (s *Service) logFailure(c Command, err error) {
	switch queue.CodeOf(err) {
	case queue.CodeInvalid, queue.CodeNotFound, queue.CodeAmbiguous, queue.CodeLimit, queue.CodeQuota, queue.CodeConflict, queue.CodeQuarantined, queue.CodeTooLarge:
		return
	}
	if _, ok := errors.AsType[*parse.Error](err); ok {
		return
	}
	if _, ok := errors.AsType[refusal](err); ok {
		return
	}
	s.log.Error("a command failed", "verb", c.Verb, "user", c.From.User(), "job", c.Job, "err", err)
}

// settings are what the service keeps about one user.
type settings struct {
	Blocked bool `json:"blocked,omitempty"`
	Daily   *int `json:"daily,omitempty"` // own limit; limits.Unlimited lifts it
}

func settingsKey(user string) string { return "bots/user/" + user }

func (s *Service) settings(ctx context.Context, user string) (settings, error) {
	var u settings
	r, err := s.jobs.Get(ctx, settingsKey(user))
	if queue.CodeOf(err) == queue.CodeNotFound {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	return u, json.Unmarshal(r.Value, &u)
}

func (s *Service) dream(ctx context.Context, c Command) (Reply, error) {
	return s.submit(ctx, c, queue.Request{
		Prompt: c.Prompt, Negative: c.Negative, Seed: c.Seed,
		Kind: queue.Kind(c.Kind), Quality: queue.Quality(c.Quality),
		Formats: c.Formats, Model: c.Model, Private: c.Private,
	})
}

// again makes a new job out of one that exists: the same input with a fresh
// seed, in the next quality, or unchanged. Anybody who sees the job may, at the
// cost of their own quota; private jobs are their owner's.
func (s *Service) again(ctx context.Context, c Command) (Reply, error) {
	job, err := s.find(ctx, c, false)
	if err != nil {
		return Reply{}, err
	}
	r := queue.Request{
		Prompt: job.Prompt, Negative: job.Negative, Seed: job.Seed, Kind: job.Kind, Quality: job.Quality,
		Formats: job.Formats, Model: job.Model, Private: job.Private, Parent: job.ID,
	}
	switch c.Verb {
	case parse.Vary:
		r.Seed = nil
	case parse.Refine:
		var ok bool
		if r.Kind, r.Quality, ok = s.Next(job.Kind, job.Quality); !ok {
			return Reply{}, refusal(c.lang().Say("error.no-refine"))
		}
	}
	return s.submit(ctx, c, r)
}

// Next is what Refine makes of a job: a mesh of the views, then the next
// quality that is offered. ok is false at the end.
func (s *Service) Next(k queue.Kind, q queue.Quality) (queue.Kind, queue.Quality, bool) {
	if k == queue.Views {
		return queue.Mesh, q, true
	}
	at := slices.Index(s.config.Qualities, q)
	if q == "" {
		at = len(s.config.Qualities) - 1 // the best there is
	}
	if at < 0 || at+1 >= len(s.config.Qualities) {
		return k, q, false
	}
	return k, s.config.Qualities[at+1], true
}

func (s *Service) submit(ctx context.Context, c Command, r queue.Request) (Reply, error) {
	l := c.lang()
	if err := s.offered(l, &r); err != nil {
		return Reply{}, err
	}
	user := c.From.User()
	own, err := s.settings(ctx, user)
	if err != nil {
		return Reply{}, err
	}
	if own.Blocked {
		return Reply{}, refusal(l.Say("error.blocked"))
	}
	s.refreshWords()
	r.Class, r.Requester, r.Origin = queue.Interactive, c.From, c.Origin
	if err := s.decent(c, &r); err != nil {
		return Reply{}, err
	}
	if r.Seed == nil {
		seed := rand.Int64N(1 << 32)
		r.Seed = &seed
	}
	if c.Key != "" {
		r.Key = c.From.Platform + "/" + c.Key
	}
	var quotas []queue.Quota
	for _, lim := range s.config.Limits.Submit(user, c.Space, own.Daily, s.now()) {
		lim.Sentence = limitSentence(l, lim)
		quotas = append(quotas, lim.Quota)
	}
	receipt, err := s.jobs.Submit(ctx, r, quotas...)
	if err != nil {
		return Reply{}, err
	}
	s.log.Info("accepted", "job", receipt.ID, "user", user, "kind", cmp.Or(r.Kind, queue.Mesh), "new", receipt.New)
	return s.acknowledge(ctx, c, r, receipt), nil
}

func limitSentence(l Lang, lim limits.Limit) string {
	switch {
	case lim.Live:
		return l.Say("live."+string(lim.Scope), lim.Limit)
	case lim.Scope == limits.Cooldown:
		return l.Say("limit.cooldown", l.duration(lim.Life))
	}
	return l.Say("limit."+string(lim.Scope), lim.Limit, When(lim.Until))
}

// offered checks what only the service knows: qualities and models.
func (s *Service) offered(l Lang, r *queue.Request) error {
	if r.Quality != "" && !slices.Contains(s.config.Qualities, r.Quality) {
		names := make([]string, len(s.config.Qualities))
		for i, q := range s.config.Qualities {
			names[i] = string(q)
		}
		return refusal(l.Say("error.quality", string(r.Quality), strings.Join(names, ", ")))
	}
	if r.Model != "" && len(s.config.Models) > 0 && !slices.Contains(s.config.Models, r.Model) {
		return refusal(l.Say("error.model", User(r.Model), strings.Join(s.config.Models, ", ")))
	}
	return nil
}

// acknowledge words the receipt: what was understood, where it stands, and how
// to cancel it.
func (s *Service) acknowledge(ctx context.Context, c Command, r queue.Request, receipt queue.Receipt) Reply {
	l := c.lang()
	text := l.Say("ack", settingsLine(l, &r), parse.Short(receipt.ID), l.place(s.place(ctx, receipt.ID), r.Model))
	if !receipt.New {
		text = l.Say("ack.again", parse.Short(receipt.ID))
	}
	if r.Private {
		text += "\n" + l.Say("ack.private")
	} else if c.Origin.Extra["dm"] != "" {
		text += "\n" + l.Say("ack.dm")
	}
	return Reply{
		Message: Message{Text: text, Buttons: []Button{cancelButton(l, receipt.ID)}},
		Private: r.Private, Job: receipt.ID,
	}
}

// place looks where a job stands; nil when the queue does not say in time.
func (s *Service) place(ctx context.Context, id string) *queue.Place {
	p, err := s.jobs.Place(ctx, id)
	if err != nil {
		return nil
	}
	return &p
}

// settingsLine says how a request was understood.
func settingsLine(l Lang, r *queue.Request) string {
	kind := r.Kind
	if kind == "" {
		kind = queue.Mesh
	}
	parts := []string{User(r.Prompt), l.Say("kind." + string(kind)), l.Say("quality." + string(r.Quality))}
	if r.Seed != nil {
		parts = append(parts, l.Say("seed", *r.Seed))
	}
	if r.Negative != "" {
		parts = append(parts, l.Say("negative", User(r.Negative)))
	}
	if r.Model != "" {
		parts = append(parts, User(r.Model))
	}
	if len(r.Formats) > 0 {
		parts = append(parts, strings.Join(r.Formats, "+"))
	}
	return strings.Join(parts, " · ")
}

func cancelButton(l Lang, job string) Button {
	return Button{ID: ButtonID(parse.Cancel, job), Label: l.Say("button.cancel"), Style: Danger}
}

// place words where a job stands. Nothing in it is made up: without samples it
// says so.
func (l Lang) place(p *queue.Place, model string) string {
	switch {
	case p == nil:
		return l.Say("place.unknown")
	case p.Status != queue.Queued:
		return l.Say("status." + string(p.Status))
	case p.Paused != "":
		return l.Say("place.paused")
	}
	at := l.Say("place.next")
	if p.About {
		at = l.Say("place.about", p.Position)
	} else if p.Position > 1 {
		at = l.Say("place.position", p.Position)
	}
	switch {
	case p.Slots == 0 && model != "":
		return at + " · " + l.Say("place.no-model", User(model))
	case p.Slots == 0:
		return at + " · " + l.Say("place.no-worker")
	case !p.Known:
		return at + " · " + l.Say("place.unknown")
	}
	start := l.Say("range.now")
	if p.StartHigh >= 5*time.Second {
		start = l.Say("range.in", l.between(p.StartLow, p.StartHigh))
	}
	return at + " · " + l.Say("place.starts", start, l.between(p.RunLow, p.RunHigh))
}

// between words a range of durations, coarsely.
func (l Lang) between(low, high time.Duration) string {
	a, b := l.duration(low), l.duration(high)
	if a == b || low < time.Second {
		return l.Say("range.one", b)
	}
	return l.Say("range.two", a, b)
}

// duration words a time in the largest unit that fits, rounded up to steps
// that do not pretend to be exact.
func (l Lang) duration(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		n := int((d + time.Second - 1) / time.Second)
		if n > 20 {
			n = (n + 9) / 10 * 10
		}
		return l.Say("unit.seconds", max(n, 1))
	case d < 90*time.Minute:
		return l.Say("unit.minutes", int((d+30*time.Second)/time.Minute))
	}
	return l.Say("unit.hours", int((d+30*time.Minute)/time.Hour))
}

func size(bytes int64) string {
	switch {
	case bytes < 1000:
		return strconv.FormatInt(bytes, 10) + " B"
	case bytes < 1000_000:
		return strconv.FormatFloat(float64(bytes)/1e3, 'f', 0, 64) + " kB"
	}
	return strconv.FormatFloat(float64(bytes)/1e6, 'f', 1, 64) + " MB"
}
