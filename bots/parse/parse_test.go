package parse

import (
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

func seed(n int64) *int64 { return &n }

func TestLine(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Command
	}{
		{"/dream a ceramic coffee mug", Command{Verb: Dream, Prompt: "a ceramic coffee mug"}},
		{"a ceramic\n coffee mug", Command{Verb: Dream, Prompt: "a ceramic coffee mug"}},
		{"/dream a mug --seed 7 --kind views with a handle --private", Command{Verb: Dream, Prompt: "a mug with a handle", Seed: seed(7), Kind: "views", Private: true}},
		{`/dream --negative "low poly, blurry" a mug`, Command{Verb: Dream, Prompt: "a mug", Negative: "low poly, blurry"}},
		{`/dream --negative="low poly" a mug --quality=HIGH`, Command{Verb: Dream, Prompt: "a mug", Negative: "low poly", Quality: "high"}},
		{`/dream a mug —seed 9 —negative “no text”`, Command{Verb: Dream, Prompt: "a mug", Seed: seed(9), Negative: "no text"}},
		{"/dream a mug —by hand", Command{Verb: Dream, Prompt: "a mug —by hand"}},
		{"/dream a dragon's \"egg\" --formats glb,OBJ,glb", Command{Verb: Dream, Prompt: "a dragon's \"egg\"", Formats: []string{"glb", "obj"}}},
		{"/dream -- --seed is a word here", Command{Verb: Dream, Prompt: "--seed is a word here"}},
		{"/dream cancel culture statue", Command{Verb: Dream, Prompt: "cancel culture statue"}},
		{"/dream show garage", Command{Verb: Dream, Prompt: "show garage"}},
		{"/dream help me", Command{Verb: Dream, Prompt: "help me"}},
		{"/dream queue", Command{Verb: Queue}},
		{"/dream Help", Command{Verb: Help}},
		{"/dream cancel 7k2f9q", Command{Verb: Cancel, Job: "7K2F9Q"}},
		{"/dream jobs show 7k2f9q", Command{Verb: Show, Job: "7K2F9Q"}},
		{"/dream jobs", Command{Verb: List}},
		{"/dream history 2", Command{Verb: History, Page: 2}},
		{"/dream admin pause", Command{Verb: Admin, Action: AdminPause, Limit: -1}},
		{"/dream admin pause button", Command{Verb: Dream, Prompt: "admin pause button"}},
		{"/jobs", Command{Verb: List}},
		{"/jobs cancel garage", Command{Verb: Cancel, Job: "GARAGE"}},
		{"/history", Command{Verb: History, Page: 1}},
		{"/forget-me", Command{Verb: ForgetMe}},
		{"/admin block <@!42>", Command{Verb: Admin, Action: AdminBlock, User: "42", Limit: -1}},
		{"/admin quota <@U7|bob> 50", Command{Verb: Admin, Action: AdminQuota, User: "U7", Limit: 50}},
		{"/dream a family 👩\u200d👩\u200d👧 mug\u202e\u200b", Command{Verb: Dream, Prompt: "a family 👩\u200d👩\u200d👧 mug"}},
	} {
		got, err := Line(c.in)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("Line(%q) = %+v, %v; want %+v", c.in, got, err, c.want)
		}
	}
}

func TestComplaints(t *testing.T) {
	for in, code := range map[string]string{
		"":                                   "empty",
		"/dream":                             "empty",
		"/dream  \n\t ":                      "empty",
		"/dream --seed 3":                    "empty",
		"/dream \u200b\u202e\u2060":          "invisible",
		"/dream " + strings.Repeat("ä", 501): "too-long",
		"/dream a\xffb":                      "utf8",
		"/dream a\x1b[31mred":                "control",
		"/dream a mug\x00":                   "control",
		"/dream mug --sed 3":                 "unknown-flag",
		"/dream mug --seed":                  "flag-value",
		"/dream mug --seed --private":        "flag-value",
		"/dream mug --seed 1 --seed 2":       "flag-twice",
		"/dream mug --seed x":                "bad-seed",
		"/dream mug --seed -1":               "bad-seed",
		"/dream mug --seed 9007199254740992": "bad-seed",
		"/dream mug --kind video":            "flag-choice",
		"/dream mug --formats glb,fbx":       "flag-choice",
		"/dream mug --model ../x":            "bad-model",
		"/jobs frob":                         "jobs-usage",
		"/jobs show":                         "jobs-usage",
		"/jobs show culture":                 "bad-job",
		"/history none":                      "bad-page",
		"/queue now":                         "no-arguments",
		"/admin":                             "admin-usage",
		"/admin quota bob -3":                "bad-limit",
		"/imagine a mug":                     "unknown-command",
	} {
		_, err := Line(in)
		var e *Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("Line(%q): %v, want %s", in, err, code)
			continue
		}
		if s := e.Error(); strings.Contains(s, "%!") || !strings.HasSuffix(s, ".") || strings.Contains(s, "\n") {
			t.Errorf("Line(%q) complains in bad form: %q", in, s)
		}
	}
	if _, err := Line("/dream " + strings.Repeat("ä", 500)); err != nil {
		t.Errorf("500 code points: %v", err)
	}
}

// text draws what people and attackers type.
func text() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(rapid.OneOf(
			rapid.String(),
			rapid.SampledFrom([]string{"--seed", "--negative", "\"", "“", "—kind", "cancel", "admin", "\u202e", "\u200d", "👩", "e\u0301", "--", "=", "/dream", "7K2F9Q", "\n", " "}),
		), 0, 12).Draw(t, "parts")
		return strings.Join(parts, rapid.SampledFrom([]string{"", " "}).Draw(t, "glue"))
	})
}

// checkCommand holds for every command that was read from any text.
func checkCommand(t interface{ Errorf(string, ...any) }, in string, c Command, err error) {
	if err != nil {
		var e *Error
		if !errors.As(err, &e) || sentences[e.Code] == "" || strings.Contains(e.Error(), "%!") {
			t.Errorf("%q: %#v is not a complaint of the catalogue", in, err)
		}
		return
	}
	for _, s := range []string{c.Prompt, c.Negative} {
		if !utf8.ValidString(s) || !norm.NFC.IsNormalString(s) || Clean(s) != s || utf8.RuneCountInString(s) > MaxPrompt {
			t.Errorf("%q gives %q, which is not clean", in, s)
		}
		for _, r := range s {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
				t.Errorf("%q gives %q with %U", in, s, r)
			}
		}
	}
	if c.Verb == Dream && c.Prompt == "" {
		t.Errorf("%q gives a dream without prompt", in)
	}
	if c.Seed != nil && (*c.Seed < 0 || *c.Seed > MaxSeed) {
		t.Errorf("%q gives seed %d", in, *c.Seed)
	}
}

func TestAnyText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := text().Draw(t, "in")
		c, err := Line(in)
		checkCommand(t, in, c, err)
		c, err = Text(in)
		checkCommand(t, in, c, err)
	})
}

// A prompt of plain words with flags between them in any order comes back whole.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[a-z']{1,8},?`), 1, 12).Draw(t, "words")
		s := rapid.Int64Range(0, MaxSeed).Draw(t, "seed")
		at := rapid.IntRange(0, len(words)).Draw(t, "at")
		in := strings.Join(words[:at], " ") + " --seed " + strconv.FormatInt(s, 10) + " --negative \"a b\" " + strings.Join(words[at:], " ")
		c, err := Line("/dream " + in)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.Join(words, " "); c.Prompt != want || *c.Seed != s || c.Negative != "a b" {
			t.Fatalf("%q gives %+v", in, c)
		}
	})
}

// What chat shows of a job id is understood when it is typed back.
func TestShort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching(`[0-7][0-9A-HJKMNP-TV-Z]{25}`).Draw(t, "id")
		short := Short(id)
		if len(short) < MinEnding || !strings.HasSuffix(id, short) {
			t.Fatalf("Short(%s) = %s", id, short)
		}
		c, err := Text("cancel " + strings.ToLower(short))
		if err != nil || c.Verb != Cancel || c.Job != short {
			t.Fatalf("cancel %s is %+v, %v", short, c, err)
		}
	})
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"/dream a mug --seed 3", "/admin quota <@!1> 5", "cancel 7K2F9Q", "--negative “x", "\xff\x00", "👩\u200d👧"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		c, err := Line(in)
		checkCommand(t, in, c, err)
	})
}
