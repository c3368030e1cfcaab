package parse

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxPrompt is the length limit of prompts, in Unicode code points after Clean.
const MaxPrompt = 500

// Error is a complaint about what was typed. Code names the sentence in the
// catalogue of messages ("parse." + Code); Error is that sentence in English.
type Error struct {
	Code string
	Args []any
}

func (e *Error) Error() string {
	return fmt.Sprintf(sentences[e.Code], e.Args...)
}

func fail(code string, args ...any) error { return &Error{code, args} }

// sentences are the complaints in English: one sentence each that says what to do.
var sentences = map[string]string{
	"empty":           "Please say what to make, for example: /dream a ceramic coffee mug.",
	"invisible":       "That prompt has no visible characters; please describe what to make.",
	"too-long":        "That text has %d characters; at most %d are possible, please shorten it.",
	"utf8":            "That text is not valid UTF-8; please type it again.",
	"control":         "That text contains a control character (U+%04X); please remove it.",
	"unknown-flag":    "There is no flag %s; the flags are %s.",
	"flag-twice":      "The flag %s was given twice; please give it once.",
	"flag-value":      "The flag %s needs a value.",
	"flag-choice":     "The flag %s takes one of: %s.",
	"bad-seed":        "A seed is a whole number from 0 to %s.",
	"bad-model":       "A model name has only letters, digits, dots, dashes and underscores.",
	"bad-job":         "That is not a job id; use the id shown with the job, or its last six or more characters.",
	"bad-page":        "A page is a whole number from 1.",
	"bad-limit":       "A daily limit is a whole number from 0 to 1000000.",
	"no-arguments":    "The command %s stands alone; please leave out what follows it.",
	"jobs-usage":      "Use /jobs list, /jobs show ID or /jobs cancel ID.",
	"admin-usage":     "Use /admin pause, resume, drain, status, cancel ID, block USER, unblock USER or quota USER [N].",
	"unknown-command": "There is no command %s; /help lists the commands.",
}

// Sentences are the complaints by code, for the catalogue of messages.
func Sentences() map[string]string { return sentences }

// Prompt cleans a prompt and checks its length.
func Prompt(s string) (string, error) {
	if err := checkText(s); err != nil {
		return "", err
	}
	if strings.TrimSpace(s) == "" {
		return "", fail("empty")
	}
	s = Clean(s)
	if s == "" {
		return "", fail("invisible")
	}
	if n := utf8.RuneCountInString(s); n > MaxPrompt {
		return "", fail("too-long", n, MaxPrompt)
	}
	return s, nil
}

// checkText refuses what no text should hold: invalid UTF-8 and control
// characters other than white space.
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return fail("utf8")
	}
	for _, r := range s {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return fail("control", r)
		}
	}
	return nil
}

// Clean brings text into the form in which it is kept: composed (NFC), without
// characters that cannot be seen (bidirectional controls, zero-width marks,
// tags, private use; joiners stay between the parts of an emoji), white space collapsed to
// single blanks. Clean(Clean(s)) == Clean(s).
func Clean(s string) string {
	runes := []rune(norm.NFC.String(strings.ToValidUTF8(s, "")))
	kept := make([]rune, 0, len(runes))
	for i, r := range runes {
		if r == joiner {
			if len(kept) > 0 && emojiPart(kept[len(kept)-1]) && i+1 < len(runes) && emojiPart(runes[i+1]) {
				kept = append(kept, r)
			}
			continue
		}
		if unicode.IsSpace(r) {
			r = ' '
		} else if invisible(r) {
			continue
		}
		kept = append(kept, r)
	}
	// Removing a mark may bring a letter and its accent together.
	return strings.Join(strings.Fields(norm.NFC.String(string(kept))), " ")
}

const joiner = '\u200d'

// emojiPart tells whether a joiner beside r is part of an emoji: pictographs
// and the selector and skin tones that may stand between.
func emojiPart(r rune) bool {
	return unicode.Is(unicode.So, r) || r == '\ufe0f' || (r >= 0x1f3fb && r <= 0x1f3ff)
}

func invisible(r rune) bool {
	switch {
	case r == 0x034f, r == 0x115f, r == 0x1160, r == 0x3164, r == 0xffa0, // grapheme joiner, Hangul fillers
		r == 0x2800, // blank Braille pattern
		unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co), // controls, formats (bidi, zero-width, tags), private use
		unicode.Is(unicode.Noncharacter_Code_Point, r),
		r >= 0xfe00 && r <= 0xfe0e, r >= 0xe0100 && r <= 0xe01ef: // variation selectors other than the emoji one
		return true
	}
	return false
}

// clip shortens a word that is quoted back.
func clip(s string) string {
	r := []rune(Clean(s))
	if len(r) > 24 {
		return string(r[:24]) + "…"
	}
	return string(r)
}
