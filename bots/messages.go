package bots

import (
	"errors"
	"fmt"
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

// Say forms the text with that key.
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
	return fmt.Sprintf(text, args...)
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
