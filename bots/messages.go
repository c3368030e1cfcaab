package bots

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"dreamcad/bots/parse"
	"dreamcad/queue"
)

// catalogues are the texts by language, then by key. All have every key; a new
// one may begin with some: what it lacks is said in English.
var catalogues = map[string]map[string]string{"en": english, "de": german, "es": spanish}

// Lang is a language of the catalogue.
type Lang string

// Language picks the catalogue for a locale such as "de", "es-419" or "en-GB".
func Language(locale string) Lang {
	base, _, _ := strings.Cut(strings.ToLower(strings.ReplaceAll(locale, "_", "-")), "-")
	if _, ok := catalogues[base]; ok {
		return Lang(base)
	}
	return "en"
}

// Say forms the text with that key. {job|jobs} in a text is the first where the number
// before it is 1, and the second elsewhere.
func (l Lang) Say(key string, args ...any) string {
	text, ok := catalogues[string(l)][key]
	if !ok {
		if text, ok = english[key]; !ok {
			return key // a test looks for keys that are missing
		}
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(inflect(text, args), args...)
}

var (
	verbs   = regexp.MustCompile(`%(\[\d\])?[-+# 0]*\d*[a-zA-Z]`)
	numbers = regexp.MustCompile(`\{([^{|}]*)\|([^{|}]*)\}`) // singular and plural
)

// inflect chooses between singular and plural by the argument whose verb comes last before.
func inflect(text string, args []any) string {
	var b strings.Builder
	done := 0
	for _, at := range numbers.FindAllStringSubmatchIndex(text, -1) {
		b.WriteString(text[done:at[0]])
		n := len(verbs.FindAllString(text[:at[0]], -1))
		if n > 0 && n <= len(args) && fmt.Sprint(args[n-1]) == "1" {
			b.WriteString(text[at[2]:at[3]])
		} else {
			b.WriteString(text[at[4]:at[5]])
		}
		done = at[1]
	}
	return b.String() + text[done:]
}

// complain words an error for the person who asked: a complaint about what was
// typed, the queue's sentence, or an apology with no details.
func (l Lang) complain(err error) string {
	if e, ok := errors.AsType[*parse.Error](err); ok {
		if text, ok := catalogues[string(l)]["parse."+e.Code]; ok {
			return fmt.Sprintf(text, e.Args...)
		}
		return e.Error()
	}
	if e, ok := errors.AsType[*queue.Error](err); ok && e.Sentence == "" {
		switch e.Code {
		case queue.CodeUnavailable:
			return l.Say("error.unavailable")
		case queue.CodeNotFound:
			return l.Say("error.not-found")
		case queue.CodeAmbiguous:
			return l.Say("error.ambiguous")
		}
	}
	if e, ok := errors.AsType[*queue.Error](err); ok && e.Code == queue.CodeUnavailable {
		return l.Say("error.unavailable")
	}
	if e, ok := errors.AsType[*queue.Error](err); ok && e.Sentence != "" {
		return User(e.Sentence) // it may quote what was typed
	}
	return l.Say("error.ours")
}
