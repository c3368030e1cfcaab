// Package parse holds the one grammar of commands: what people type in Discord,
// Slack, the web console and prompt files. It knows words, not people: who asks
// and where is added by the caller (bots.Command).
//
//	/dream PROMPT [--kind views|mesh] [--negative TEXT] [--seed N] [--quality draft|standard|high]
//	              [--formats glb,obj,stl] [--model NAME] [--private]
//	/jobs list|show ID|cancel ID   /history [PAGE]   /queue   /quota   /help   /privacy   /forget-me
//	/ingest   /admin pause|resume|drain|status|cancel ID|block USER|unblock USER|quota USER [N]
//
// A flag may stand anywhere; its value is the next word or a quoted string; "--"
// alone ends the flags. Text takes part in no error: errors quote at most one word.
package parse

import (
	"slices"
	"strconv"
	"strings"
)

// MaxSeed is the largest seed: Discord and JavaScript carry integers as doubles.
const MaxSeed = 1<<53 - 1

// Verb says what is asked. The verbs after Admin have no spelling of their own:
// they come from buttons.
type Verb string

// The verbs of the grammar, then those of buttons.
const (
	Dream    Verb = "dream"
	List     Verb = "list"
	Show     Verb = "show"
	Cancel   Verb = "cancel"
	History  Verb = "history"
	Queue    Verb = "queue"
	Quota    Verb = "quota"
	Help     Verb = "help"
	Privacy  Verb = "privacy"
	ForgetMe Verb = "forget-me"
	Ingest   Verb = "ingest"
	Admin    Verb = "admin"

	Vary    Verb = "vary"    // the same prompt with a fresh seed
	Refine  Verb = "refine"  // the same job in the next quality
	Retry   Verb = "retry"   // the same job again
	Delete  Verb = "delete"  // take back the result
	Ack     Verb = "ack"     // an operator has seen an alert
	Silence Verb = "silence" // an operator wants no more of an alert for a while
)

// AdminAction is the word after /admin.
type AdminAction string

// What an administrator can ask for.
const (
	AdminPause   AdminAction = "pause"
	AdminResume  AdminAction = "resume"
	AdminDrain   AdminAction = "drain"
	AdminStatus  AdminAction = "status"
	AdminCancel  AdminAction = "cancel"
	AdminBlock   AdminAction = "block"
	AdminUnblock AdminAction = "unblock"
	AdminQuota   AdminAction = "quota"
)

// Command is one command as it was typed, checked for form but not for rights.
type Command struct {
	Verb     Verb
	Prompt   string // clean (see Clean), 1 to MaxPrompt code points; Dream only
	Negative string
	Seed     *int64   // nil: the service picks one
	Kind     string   // "views", "mesh" or "" for the default of the place
	Quality  string   // "draft", "standard", "high" or "" for the best there is
	Formats  []string // of "glb", "obj", "stl"; empty for the default
	Model    string   // "" for the default
	Private  bool
	Job      string      // id or ending: Show, Cancel, Admin cancel and the buttons
	Page     int         // History, from 1
	Action   AdminAction // Admin
	User     string      // whom Admin block, unblock and quota are about: an id or platform:id
	Limit    int         // Admin quota: the new daily limit; -1 asks for the present one
}

// Line reads a whole line as the console takes it: a slash command, or a bare
// prompt, which is short for /dream.
func Line(text string) (Command, error) {
	if err := checkText(text); err != nil {
		return Command{}, err
	}
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "/") {
		return dream(text)
	}
	name, rest, _ := cutWord(text)
	switch name = strings.ToLower(name); name {
	case "/dream":
		return Text(rest)
	case "/jobs":
		return jobs(rest)
	case "/history", "/queue", "/quota", "/help", "/privacy", "/forget-me", "/ingest":
		return word(Verb(name[1:]), rest)
	case "/admin":
		return admin(rest)
	}
	return Command{}, fail("unknown-command", clip(name))
}

// Text reads what stands after /dream. A subword ("help", "cancel 7K2F9Q")
// counts only as the whole text or before a job id, so that "cancel culture
// statue" is a prompt.
func Text(text string) (Command, error) {
	if err := checkText(text); err != nil {
		return Command{}, err
	}
	words := strings.Fields(text)
	if len(words) > 0 && len(words) <= 4 {
		if c, ok := subword(words); ok {
			return c, nil
		}
	}
	return dream(text)
}

func subword(words []string) (Command, bool) {
	first, rest := strings.ToLower(words[0]), words[1:]
	if first == "jobs" && len(rest) > 0 {
		first, rest = strings.ToLower(rest[0]), rest[1:]
	}
	switch {
	case len(rest) == 0:
		switch v := Verb(first); v {
		case "jobs":
			return Command{Verb: List}, true
		case List, Queue, Quota, Help, Privacy, ForgetMe, Ingest:
			return Command{Verb: v}, true
		case History:
			return Command{Verb: History, Page: 1}, true
		}
	case len(rest) == 1 && (first == "show" || first == "cancel") && IsJobID(rest[0]):
		return Command{Verb: Verb(first), Job: strings.ToUpper(rest[0])}, true
	case len(rest) == 1 && first == "history":
		if n, err := strconv.Atoi(rest[0]); err == nil && n > 0 && n < 1e6 {
			return Command{Verb: History, Page: n}, true
		}
	case first == "admin" && words[0] != "jobs":
		c, err := admin(strings.Join(rest, " "))
		return c, err == nil
	}
	return Command{}, false
}

// word reads a command that is a verb alone; /history may name a page.
func word(v Verb, rest string) (Command, error) {
	rest = strings.TrimSpace(rest)
	c := Command{Verb: v}
	if v == History {
		c.Page = 1
		if rest != "" {
			n, err := strconv.Atoi(rest)
			if err != nil || n < 1 || n >= 1e6 {
				return Command{}, fail("bad-page")
			}
			c.Page = n
		}
		return c, nil
	}
	if rest != "" {
		return Command{}, fail("no-arguments", "/"+string(v))
	}
	return c, nil
}

func jobs(rest string) (Command, error) {
	words := strings.Fields(rest)
	if len(words) == 0 || (len(words) == 1 && strings.EqualFold(words[0], "list")) {
		return Command{Verb: List}, nil
	}
	v := Verb(strings.ToLower(words[0]))
	if v != Show && v != Cancel {
		return Command{}, fail("jobs-usage")
	}
	if len(words) != 2 {
		return Command{}, fail("jobs-usage")
	}
	id, err := JobID(words[1])
	return Command{Verb: v, Job: id}, err
}

func admin(rest string) (Command, error) {
	words := strings.Fields(rest)
	if len(words) == 0 {
		return Command{}, fail("admin-usage")
	}
	c := Command{Verb: Admin, Action: AdminAction(strings.ToLower(words[0])), Limit: -1}
	args := words[1:]
	switch c.Action {
	case AdminPause, AdminResume, AdminDrain, AdminStatus:
		if len(args) == 0 {
			return c, nil
		}
	case AdminCancel:
		if len(args) == 1 {
			id, err := JobID(args[0])
			c.Job = id
			return c, err
		}
	case AdminBlock, AdminUnblock:
		if len(args) == 1 {
			c.User = user(args[0])
			return c, nil
		}
	case AdminQuota:
		if len(args) == 1 || len(args) == 2 {
			c.User = user(args[0])
			if len(args) == 2 {
				n, err := strconv.Atoi(args[1])
				if err != nil || n < 0 || n > 1e6 {
					return Command{}, fail("bad-limit")
				}
				c.Limit = n
			}
			return c, nil
		}
	}
	return Command{}, fail("admin-usage")
}

// user takes a mention as the platforms write it (<@123>, <@!123>, <@U1|bob>)
// or a plain id.
func user(s string) string {
	if id, ok := strings.CutPrefix(s, "<@"); ok && strings.HasSuffix(id, ">") {
		id, _, _ = strings.Cut(strings.TrimSuffix(strings.TrimPrefix(id, "!"), ">"), "|")
		return id
	}
	return s
}

// JobID checks an id or an ending of one (at least MinEnding characters of
// Crockford's base 32) and returns it in capitals.
func JobID(s string) (string, error) {
	s = strings.ToUpper(strings.TrimSpace(s))
	if len(s) < MinEnding || len(s) > 26 || strings.Trim(s, crockford) != "" {
		return "", fail("bad-job")
	}
	return s, nil
}

// MinEnding is the least number of characters of a job id that names a job.
const MinEnding = 6

const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// IsJobID tells whether a word in the middle of free text is a job id: the
// right alphabet, long enough, and with a digit, which keeps "show garage" a
// prompt. Short shows only endings that pass.
func IsJobID(s string) bool {
	_, err := JobID(s)
	return err == nil && strings.ContainsAny(s, "0123456789")
}

// Short is the ending of a job id that chat shows: the last six characters, or
// more until one of them is a digit.
func Short(id string) string {
	n := max(len(id)-MinEnding, 0)
	for n > 0 && !strings.ContainsAny(id[n:], "0123456789") {
		n--
	}
	return id[n:]
}

// choices are the flags that take one of a few words.
var choices = map[string][]string{
	"kind":    {"views", "mesh"},
	"quality": {"draft", "standard", "high"},
	"formats": {"glb", "obj", "stl"},
}

var flagNames = []string{"formats", "kind", "model", "negative", "private", "quality", "seed"}

// dream reads a prompt with flags.
func dream(text string) (Command, error) {
	c := Command{Verb: Dream}
	var prompt []string
	seen := map[string]bool{}
	for rest := strings.TrimLeft(text, blanks); rest != ""; rest = strings.TrimLeft(rest, blanks) {
		w, after, _ := cutWord(rest)
		if w == "--" { // everything after is the prompt
			prompt = append(prompt, after)
			break
		}
		name, ok := flagName(w)
		if !ok {
			prompt, rest = append(prompt, w), after
			continue
		}
		name, _, has := strings.Cut(name, "=")
		if !slices.Contains(flagNames, name) {
			return Command{}, fail("unknown-flag", clip("--"+name), "--"+strings.Join(flagNames, ", --"))
		}
		if seen[name] {
			return Command{}, fail("flag-twice", "--"+name)
		}
		seen[name] = true
		var value string
		switch {
		case name == "private" && !has:
			value = "true"
		case has: // the value may be a quoted string that goes on after this word
			_, start, _ := strings.Cut(rest, "=")
			value, after = cutValue(start)
		default:
			value, after = cutValue(strings.TrimLeft(after, blanks))
		}
		if err := c.set(name, value); err != nil {
			return Command{}, err
		}
		rest = after
	}
	var err error
	if c.Prompt, err = Prompt(strings.Join(prompt, " ")); err != nil {
		return Command{}, err
	}
	return c, nil
}

// Set gives one option of /dream its value, as a form or a platform's option
// names it; the checks are those of the flags.
func (c *Command) Set(name, value string) error {
	if name == "prompt" {
		p, err := Prompt(value)
		c.Prompt = p
		return err
	}
	if !slices.Contains(flagNames, name) {
		return fail("unknown-flag", clip("--"+name), "--"+strings.Join(flagNames, ", --"))
	}
	if err := checkText(value); err != nil {
		return err
	}
	return c.set(name, value)
}

func (c *Command) set(name, value string) error {
	value = strings.TrimSpace(value)
	if value == "" {
		return fail("flag-value", "--"+name)
	}
	lower := strings.ToLower(value)
	switch name {
	case "kind", "quality":
		if !slices.Contains(choices[name], lower) {
			return fail("flag-choice", "--"+name, strings.Join(choices[name], ", "))
		}
		if name == "kind" {
			c.Kind = lower
		} else {
			c.Quality = lower
		}
	case "formats":
		c.Formats = nil
		for f := range strings.SplitSeq(lower, ",") {
			f = strings.TrimSpace(f)
			if !slices.Contains(choices[name], f) {
				return fail("flag-choice", "--formats", strings.Join(choices[name], ", "))
			}
			if !slices.Contains(c.Formats, f) {
				c.Formats = append(c.Formats, f)
			}
		}
	case "seed":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 || n > MaxSeed {
			return fail("bad-seed", strconv.Itoa(MaxSeed))
		}
		c.Seed = &n
	case "model":
		if len(value) > 64 || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
			return fail("bad-model")
		}
		c.Model = value
	case "negative":
		n, err := Prompt(value)
		if err != nil {
			return err
		}
		c.Negative = n
	case "private":
		b, err := strconv.ParseBool(lower)
		if err != nil {
			return fail("flag-choice", "--private", "true, false")
		}
		c.Private = b
	}
	return nil
}

const blanks = " \t\r\n\v\f\u0085\u00a0\u2028\u2029\u3000"

// cutWord cuts off the first word.
func cutWord(s string) (word, rest string, found bool) {
	i := strings.IndexAny(s, blanks)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i:], true
}

// flagName tells whether a word begins a flag. Phones turn "--" into a dash;
// such a word is a flag if it has a flag's name.
func flagName(w string) (string, bool) {
	for _, dash := range []string{"—", "–"} {
		if name, ok := strings.CutPrefix(w, dash); ok {
			name, _, _ := strings.Cut(strings.ToLower(name), "=")
			if slices.Contains(flagNames, name) {
				w = "--" + strings.TrimPrefix(w, dash)
			}
		}
	}
	name, ok := strings.CutPrefix(w, "--")
	if !ok || name == "" || name[0] == '-' || name[0] == '=' {
		return "", false
	}
	name, value, has := strings.Cut(name, "=")
	if has {
		return strings.ToLower(name) + "=" + value, true
	}
	return strings.ToLower(name), true
}

// quotes pair an opening quotation mark with its closing one.
var quotes = map[rune]string{'"': "\"", '“': "”“", '„': "“”", '«': "»"}

// cutValue cuts off a quoted string or a word. A quoted string without its end
// goes to the end of the text. A word that is itself a flag is no value.
func cutValue(s string) (value, rest string) {
	for open, closing := range quotes {
		after, ok := strings.CutPrefix(s, string(open))
		if !ok {
			continue
		}
		if i := strings.IndexAny(after, closing); i >= 0 {
			_, rest, _ := strings.Cut(after[i:], string([]rune(after[i:])[:1]))
			return after[:i], rest
		}
		return after, ""
	}
	w, rest, _ := cutWord(s)
	if _, flag := flagName(w); flag {
		return "", s
	}
	return w, rest
}
