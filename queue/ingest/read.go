package ingest

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"dreamcad/queue"
)

// Format is the form of a prompt file.
type Format string

// The formats.
const (
	Auto  Format = ""      // by the file's name, else by its first bytes
	Text  Format = "txt"   // a prompt a line; # begins a comment line
	CSV   Format = "csv"   // a header with the column prompt and any of negative, seed, kind, quality, formats, model, tag
	JSONL Format = "jsonl" // an object a line with the same names
)

// Reject is a line that did not become a request.
type Reject struct {
	Line   int64  `json:"line"` // in the file, from 1
	Reason string `json:"reason"`
	Text   string `json:"text,omitempty"` // its beginning
}

// record is what one line asks for, or why it asks for nothing.
type record struct {
	line int64
	req  queue.Request
	err  error
	text string
}

// source reads records with bounded memory whatever the input is.
type source struct {
	r       *bufio.Reader
	format  Format
	parse   func(string, *queue.Request) error
	check   func(*queue.Request) error
	base    queue.Request
	maxLine int
	line    int64    // number of the last line that was read
	pending []string // physical lines to read again after a broken CSV record
	header  []string
}

// limited fails once more than n bytes were read: the guard against zip bombs.
type limited struct {
	r io.Reader
	n int64
}

var errTooLarge = errors.New("the file is larger than allowed")

func (l *limited) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > l.n {
		p = p[:l.n]
	}
	n, err := l.r.Read(p)
	l.n -= int64(n)
	return n, err
}

// newSource unpacks gzip, drops a byte order mark and finds the format.
func newSource(r io.Reader, o *Options) (*source, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	name := strings.ToLower(path.Base(o.Name))
	if b, _ := br.Peek(2); len(b) == 2 && b[0] == 0x1f && b[1] == 0x8b {
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("read %q: the gzip header is damaged: %w", o.Name, err)
		}
		br = bufio.NewReaderSize(&limited{z, o.MaxBytes}, 64<<10)
		name = strings.TrimSuffix(name, ".gz")
	} else {
		br = bufio.NewReaderSize(&limited{br, o.MaxBytes}, 64<<10)
	}
	if b, _ := br.Peek(3); bytes.Equal(b, []byte("\xef\xbb\xbf")) {
		_, _ = br.Discard(3) // just peeked
	} else if len(b) >= 2 && (b[0] == 0xff && b[1] == 0xfe || b[0] == 0xfe && b[1] == 0xff) {
		return nil, queue.NewError(queue.CodeInvalid, "The file is UTF-16; please save it as UTF-8.")
	}
	s := &source{r: br, format: o.Format, parse: o.ParseLine, check: o.Check, base: o.Defaults, maxLine: o.MaxLine}
	if s.format == Auto {
		s.format = guess(name, br)
	}
	if s.format == CSV {
		return s, s.readHeader()
	}
	return s, nil
}

func guess(name string, br *bufio.Reader) Format {
	switch path.Ext(name) {
	case ".csv":
		return CSV
	case ".jsonl", ".ndjson", ".json":
		return JSONL
	case ".txt", ".text", ".md":
		return Text
	}
	b, _ := br.Peek(4096)
	b = bytes.TrimLeft(b, " \t\r\n")
	if len(b) > 0 && b[0] == '{' {
		return JSONL
	}
	first, _, _ := strings.Cut(strings.ToLower(string(b)), "\n")
	names := splitTrim(first)
	if len(names) > 1 && slices.Contains(names, "prompt") && !slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(columns, n) }) {
		return CSV
	}
	return Text
}

func splitTrim(s string) []string {
	f := strings.Split(s, ",")
	for i := range f {
		f[i] = strings.Trim(strings.TrimSpace(f[i]), `"`)
	}
	return f
}

var errLong = errors.New("the line is too long")

// physical reads one line without its end. Of a line longer than maxLine it
// returns the beginning and errLong.
func (s *source) physical() (string, error) {
	if len(s.pending) > 0 {
		l := s.pending[0]
		s.pending = s.pending[1:]
		s.line++
		return l, nil
	}
	var b []byte
	long := false
	for {
		part, err := s.r.ReadSlice('\n')
		if !long {
			b = append(b, part...)
			if long = len(b) > s.maxLine; long {
				b = b[:80]
			}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || len(b) == 0):
			return "", err
		}
		break
	}
	s.line++
	if long {
		return string(b), errLong
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

func (s *source) readHeader() error {
	l, err := s.physical()
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the header: %w", err)
	}
	s.header, err = csv.NewReader(strings.NewReader(l)).Read()
	if err != nil || !slices.ContainsFunc(s.header, func(h string) bool { return strings.EqualFold(strings.TrimSpace(h), "prompt") }) {
		return queue.NewError(queue.CodeInvalid, "The first line of a CSV file must name the columns, one of them \"prompt\".")
	}
	for i, h := range s.header {
		s.header[i] = strings.ToLower(strings.TrimSpace(h))
		if !slices.Contains(columns, s.header[i]) {
			return queue.NewError(queue.CodeInvalid, fmt.Sprintf("The CSV column %q is unknown; possible are %s.", h, strings.Join(columns, ", ")))
		}
	}
	return nil
}

var columns = []string{"prompt", "negative", "seed", "kind", "quality", "formats", "model", "tag"}

// next returns the next record; io.EOF at the end. Blank lines and comments are skipped.
func (s *source) next() (*record, error) {
	for {
		l, err := s.physical()
		if errors.Is(err, errLong) {
			return &record{line: s.line, err: fmt.Errorf("longer than %d bytes", s.maxLine), text: l}, nil
		}
		if err != nil {
			return nil, err
		}
		t := strings.TrimSpace(l)
		if t == "" || s.format == Text && strings.HasPrefix(t, "#") {
			continue
		}
		x := &record{line: s.line, req: s.base, text: l}
		x.req.Formats = slices.Clone(s.base.Formats)
		if !utf8.ValidString(l) {
			x.err = errors.New("not valid UTF-8")
			return x, nil
		}
		switch s.format {
		case CSV:
			x.err = s.csv(l, x)
		case JSONL:
			x.err = fromJSON(t, &x.req)
		default:
			x.req.Prompt = t
			if s.parse != nil {
				x.err = s.parse(t, &x.req)
			}
		}
		if x.err == nil && s.check != nil {
			x.err = s.check(&x.req)
		}
		return x, nil
	}
}

// csv reads the record that begins with line l and may go on over more lines.
func (s *source) csv(l string, x *record) error {
	first := s.line
	lines := []string{l}
	for size := len(l); strings.Count(strings.Join(lines, "\n"), `"`)%2 == 1; {
		more, err := s.physical()
		if size += len(more) + 1; err != nil || size > s.maxLine {
			// The quote is never closed: only the first line is at fault.
			if err == nil {
				lines = append(lines, more)
			}
			s.pending, s.line = append(lines[1:], s.pending...), first
			return errors.New("a quote is not closed")
		}
		lines = append(lines, more)
	}
	r := csv.NewReader(strings.NewReader(strings.Join(lines, "\n")))
	f, err := r.Read()
	if err != nil {
		return fmt.Errorf("not CSV: %v", errors.Unwrap(err))
	}
	if len(f) != len(s.header) {
		return fmt.Errorf("%d columns instead of %d", len(f), len(s.header))
	}
	for i, h := range s.header {
		if err := set(&x.req, h, strings.TrimSpace(f[i])); err != nil {
			return err
		}
	}
	return nil
}

func set(r *queue.Request, column, v string) error {
	if v == "" && column != "prompt" {
		return nil
	}
	switch column {
	case "prompt":
		r.Prompt = v
	case "negative":
		r.Negative = v
	case "seed":
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return fmt.Errorf("the seed %q is not a whole number", cut(v))
		}
		r.Seed = &n
	case "kind":
		r.Kind = queue.Kind(strings.ToLower(v))
	case "quality":
		r.Quality = queue.Quality(strings.ToLower(v))
	case "formats":
		r.Formats = strings.FieldsFunc(strings.ToLower(v), func(c rune) bool { return c == ',' || c == ' ' || c == ';' })
	case "model":
		r.Model = v
	case "tag":
		r.Tag = v
	}
	return nil
}

// object is a line of JSONL; unknown names are refused so that a typing error
// does not silently change what is made.
type object struct {
	Prompt   string        `json:"prompt"`
	Negative string        `json:"negative"`
	Seed     *int64        `json:"seed"`
	Kind     queue.Kind    `json:"kind"`
	Quality  queue.Quality `json:"quality"`
	Formats  []string      `json:"formats"`
	Model    string        `json:"model"`
	Tag      string        `json:"tag"`
}

func fromJSON(l string, r *queue.Request) error {
	d := json.NewDecoder(strings.NewReader(l))
	d.DisallowUnknownFields()
	o := object{Negative: r.Negative, Kind: r.Kind, Quality: r.Quality, Formats: r.Formats, Model: r.Model, Tag: r.Tag, Seed: r.Seed}
	if err := d.Decode(&o); err != nil {
		return jsonError(err)
	}
	if d.More() {
		return errors.New("more than one JSON value on the line")
	}
	r.Prompt, r.Negative, r.Seed, r.Kind, r.Quality, r.Formats, r.Model, r.Tag = o.Prompt, o.Negative, o.Seed, o.Kind, o.Quality, o.Formats, o.Model, o.Tag
	return nil
}

// jsonError says in the file's words what is wrong with a line.
func jsonError(err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) && kind.Field != "" {
		want := "a text"
		switch kind.Type.Kind() {
		case reflect.Int64:
			want = "a whole number"
		case reflect.Slice:
			want = "a list of texts"
		}
		return fmt.Errorf("%q must be %s, not %s", kind.Field, want, kind.Value)
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("the name %s is unknown; possible are %s", name, strings.Join(columns, ", "))
	}
	return errors.New("not a JSON object")
}

// readError says why reading stopped.
func readError(err error) string {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the gzip data ends early, the file was cut off"
	case errors.Is(err, gzip.ErrChecksum), errors.Is(err, gzip.ErrHeader), errors.As(err, new(flate.CorruptInputError)):
		return "the gzip data is damaged"
	}
	return err.Error()
}

// cut shortens a text for a message.
func cut(s string) string {
	if len(s) <= 80 {
		return s
	}
	return strings.ToValidUTF8(s[:80], "") + "…"
}
