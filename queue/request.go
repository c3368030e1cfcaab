package queue

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
)

// Kind says what a request asks for.
type Kind string

// The kinds.
const (
	Views Kind = "views" // four images
	Mesh  Kind = "mesh"  // views first, then 3D
)

// Quality names a level of effort.
type Quality string

// The qualities.
const (
	Draft    Quality = "draft"
	Standard Quality = "standard"
	High     Quality = "high"
)

// Class orders jobs before anything else: interactive goes before bulk.
type Class string

// The classes, in order.
const (
	Interactive Class = "interactive"
	Bulk        Class = "bulk"
)

// Classes lists the classes in the order in which they are served.
var Classes = []Class{Interactive, Bulk}

// Requester is who asks. Fair share, quotas and history go by [Requester.User].
type Requester struct {
	Platform string `json:"platform"`       // discord, slack, web, cli
	ID       string `json:"id"`             // the platform's stable id
	Name     string `json:"name,omitempty"` // for people only
}

// User is the key of the requester in shares, limits and switches: "platform:id".
func (r Requester) User() string { return r.Platform + ":" + r.ID }

// Origin is where the answer goes; the adapter of the platform that wrote it
// reads it back. The queue only carries it (≤ 4 kB as JSON).
type Origin struct {
	Platform string            `json:"platform"`
	Channel  string            `json:"channel,omitempty"`
	Thread   string            `json:"thread,omitempty"`
	Message  string            `json:"message,omitempty"` // the message that shows this job
	Extra    map[string]string `json:"extra,omitempty"`
}

// Request is what a person asked.
type Request struct {
	// ID is the job id to use; empty lets Submit choose a ULID. A second
	// Submit with a known id answers with the job that has it.
	ID string `json:"id,omitempty"`
	// Key is the idempotency key (≤ 200 bytes), for example the platform's
	// interaction id; empty means none.
	Key       string    `json:"key,omitempty"`
	Prompt    string    `json:"prompt"` // 1 … 500 code points
	Negative  string    `json:"negative,omitempty"`
	Seed      *int64    `json:"seed,omitempty"` // 0 … 2^53-1; nil lets Submit choose one
	Kind      Kind      `json:"kind"`
	Quality   Quality   `json:"quality,omitempty"`
	Formats   []string  `json:"formats,omitempty"` // of glb, obj, stl
	Model     string    `json:"model,omitempty"`   // empty: any worker's default
	Private   bool      `json:"private,omitempty"`
	Class     Class     `json:"class"`
	Requester Requester `json:"requester"`
	Origin    Origin    `json:"origin"`
	Parent    string    `json:"parent,omitempty"` // job that this one varies or refines
	Tag       string    `json:"tag,omitempty"`    // the requester's own label, from prompt files
	Batch     string    `json:"batch,omitempty"`  // set by ingest
	Line      int64     `json:"line,omitempty"`   // index within the batch, from 0; set by ingest
}

// Limits of the contract. Backends rely on them.
const (
	MaxPrompt     = 500 // code points, negative prompt too
	MaxPayload    = 64 << 10
	MaxProgress   = 1 << 10
	MaxErrorText  = 4 << 10
	MaxResult     = 32 << 10
	MaxCheckpoint = 1 << 10
	MaxRecord     = 64 << 10 // one State record
	MaxKey        = 200      // bytes of an idempotency key, a user, a name
	maxSeed       = 1 << 53
	// MinEnding is how many characters of a job id's end name it.
	MinEnding = 6
)

// Normalise fills defaults (class interactive, kind mesh, an id, a seed) and
// checks the limits. Submit calls it; ingest calls it to report bad lines
// early. The error is an [*Error] with [CodeInvalid] and a sentence.
func (r *Request) Normalise() error {
	r.Prompt = strings.TrimSpace(r.Prompt)
	r.Negative = strings.TrimSpace(r.Negative)
	if r.Class == "" {
		r.Class = Interactive
	}
	if r.Kind == "" {
		r.Kind = Mesh
	}
	if err := r.check(); err != nil {
		return err
	}
	if r.ID == "" {
		r.ID = ulid.Make().String()
	}
	if r.Seed == nil {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails since Go 1.24
		s := int64(binary.LittleEndian.Uint32(b[:]))
		r.Seed = &s
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &Error{Code: CodeInvalid, Doing: "check request", Sentence: fmt.Sprintf(format, args...)}
}

func (r *Request) check() error {
	switch {
	case r.Prompt == "":
		return invalid("The prompt is empty: say what you would like to see.")
	case !utf8.ValidString(r.Prompt) || !utf8.ValidString(r.Negative):
		return invalid("The prompt is not valid UTF-8 text.")
	case strings.ContainsRune(r.Prompt, 0) || strings.ContainsRune(r.Negative, 0):
		return invalid("The prompt contains a NUL character.")
	case utf8.RuneCountInString(r.Prompt) > MaxPrompt:
		return invalid("The prompt has %d characters; at most %d are possible.", utf8.RuneCountInString(r.Prompt), MaxPrompt)
	case utf8.RuneCountInString(r.Negative) > MaxPrompt:
		return invalid("The negative prompt has %d characters; at most %d are possible.", utf8.RuneCountInString(r.Negative), MaxPrompt)
	case r.Kind != Views && r.Kind != Mesh:
		return invalid("The kind %q is unknown; use views or mesh.", r.Kind)
	case r.Quality != "" && r.Quality != Draft && r.Quality != Standard && r.Quality != High:
		return invalid("The quality %q is unknown; use draft, standard or high.", r.Quality)
	case r.Class != Interactive && r.Class != Bulk:
		return invalid("The class %q is unknown; use interactive or bulk.", r.Class)
	case r.Seed != nil && (*r.Seed < 0 || *r.Seed >= maxSeed):
		return invalid("The seed must be a whole number from 0 to %d.", int64(maxSeed-1))
	case len(r.Key) > MaxKey:
		return invalid("The idempotency key is longer than %d bytes.", MaxKey)
	case r.Requester.Platform == "" || r.Requester.ID == "":
		return invalid("The request names no requester.")
	case len(r.Requester.User()) > MaxKey || strings.ContainsAny(r.Requester.User(), "\x00\n"):
		return invalid("The requester's id is too long or holds control characters.")
	case len(r.Model) > 64 || strings.ContainsFunc(r.Model, func(c rune) bool { return c <= ' ' || c > '~' || c == '/' }):
		return invalid("The model name %q is not possible.", r.Model)
	case len(r.Tag) > 200:
		return invalid("The tag is longer than 200 bytes.")
	case r.ID != "" && !validID(r.ID):
		return invalid("The job id %q is not possible.", r.ID)
	}
	for _, f := range r.Formats {
		if !slices.Contains([]string{"glb", "obj", "stl"}, f) {
			return invalid("The format %q is unknown; use glb, obj or stl.", f)
		}
	}
	return nil
}

func validID(s string) bool {
	return len(s) >= 8 && len(s) <= 64 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_'
	})
}

// Pool names the sort of worker that a request needs: "model/kind". Lines and
// wake-ups go by pool, so that a worker never looks at jobs that it cannot run.
func (r *Request) Pool() string { return Pool(r.Model, r.Kind) }

// Pool forms a pool's name. The empty model is the pool that any worker serves.
func Pool(model string, k Kind) string { return model + "/" + string(k) }

// Fingerprint identifies the input for quarantine: the same prompt and settings.
func (r *Request) Fingerprint() string {
	b := make([]byte, 0, 256)
	sep := byte('[')
	for _, s := range [...]string{r.Prompt, r.Negative, string(r.Kind), string(r.Quality), r.Model} {
		b = appendText(append(b, sep), s)
		sep = ','
	}
	if r.Seed == nil {
		b = append(b, ",null]"...)
	} else {
		b = append(strconv.AppendInt(append(b, ','), *r.Seed, 10), ']')
	}
	h := sha256.Sum256(b)
	return base32.StdEncoding.EncodeToString(h[:])[:26]
}

// LineID is the job id of line n (from 0) of a batch: 26 characters of a hash,
// so that feeding a line twice makes one job.
func LineID(batch string, n int64) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", batch, n))
	return strings.ToUpper(base32.HexEncoding.EncodeToString(h[:]))[:26]
}

// NewFence returns a random 128-bit lease id.
func NewFence() string { return rand.Text() }
