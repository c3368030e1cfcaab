package models

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Notice returns a sentence for the requester when what the prompt is about is
// nothing that the model was trained on: how many kinds of things it knows, and
// which of them come nearest. false means that there is nothing to say: a known
// thing is the subject, the prompt is empty, or the model has an open
// vocabulary.
//
// A thing counts as named by its name or a synonym, in singular or plural,
// whatever the capitals and the words around it. The subject is sought before
// the first preposition ("a dragon with a sword" is about a dragon), unless
// there are only describing words ("a photo of a mug").
func (d *Description) Notice(prompt string) (string, bool) {
	v := d.Vocabulary
	if v == nil {
		return "", false
	}
	words := splitWords(prompt)
	subject := v.subject(words)
	if len(words) == 0 || len(v.named(subject)) > 0 {
		return "", false
	}
	kinds := fmt.Sprintf("The model %s knows %d kinds of things", d.Name, len(v.Things))
	if others := v.named(words); len(others) > 0 {
		return fmt.Sprintf("%s, and of this prompt only %s.", kinds, enumerate(others)), true
	}
	if near := v.nearest(words, 3); len(near) > 0 {
		return fmt.Sprintf("%s and found none of them in this prompt; nearest are: %s.", kinds, enumerate(near)), true
	}
	return fmt.Sprintf("%s and found none of them in this prompt; some are: %s.", kinds, enumerate(v.examples(3))), true
}

// subject is the part of the words that says what the prompt is about: the
// first stretch between prepositions with a word that is more than a
// description; everything when there is none.
func (v *Vocabulary) subject(words []string) []string {
	start := 0
	for i := 0; i <= len(words); i++ {
		if i < len(words) && !slices.Contains(prepositions, words[i]) {
			continue
		}
		part := words[start:i]
		// A thing may also be a part of another: "cup" of a goblet.
		if len(v.named(part)) > 0 || slices.ContainsFunc(part, func(w string) bool { return !v.describes(w) }) {
			return part
		}
		start = i + 1
	}
	return words
}

// named lists the things that the words name, in their order.
func (v *Vocabulary) named(words []string) []string {
	var out []string
	for i := 0; i < len(words); {
		thing, n, ok := v.match(words[i:])
		if !ok {
			i++
			continue
		}
		if !slices.Contains(out, thing) {
			out = append(out, thing)
		}
		i += n
	}
	return out
}

// match finds the longest name of a thing that words begin with, and returns
// the thing and the number of its words.
func (v *Vocabulary) match(words []string) (thing string, n int, ok bool) {
	try := func(name, of string) {
		parts := splitWords(name)
		if len(parts) == 0 || len(parts) <= n || len(parts) > len(words) {
			return
		}
		last := len(parts) - 1
		if slices.Equal(parts[:last], words[:last]) && sameNoun(words[last], parts[last]) {
			thing, n, ok = of, len(parts), true
		}
	}
	for _, t := range sortedKeys(v.Things) {
		try(t, t)
		for _, noun := range v.Things[t] {
			try(noun, t)
		}
	}
	return thing, n, ok
}

// nearest lists up to most things that come close to a word of the prompt:
// those that are related to it, or else those spelled much like it.
func (v *Vocabulary) nearest(words []string, most int) []string {
	var out []string
	add := func(t string) {
		if _, known := v.Things[t]; known && len(out) < most && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	for _, related := range []map[string][]string{v.Related, hints} {
		for i := range words {
			for _, key := range sortedKeys(related) {
				parts := splitWords(key)
				last := len(parts) - 1
				if last >= 0 && len(parts) <= len(words)-i && slices.Equal(parts[:last], words[i:i+last]) && sameNoun(words[i+last], parts[last]) {
					for _, t := range related[key] {
						add(t)
					}
				}
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	type candidate struct {
		thing    string
		distance int
	}
	var close []candidate
	consider := func(name, thing string) {
		parts := splitWords(name)
		for _, w := range words {
			if v.describes(w) {
				continue
			}
			for _, p := range append(parts, strings.Join(parts, "")) {
				if dist := editDistance(w, p); dist <= utf8.RuneCountInString(w)/3 {
					close = append(close, candidate{thing, dist})
				}
			}
		}
	}
	for _, t := range sortedKeys(v.Things) {
		consider(t, t)
		for _, noun := range v.Things[t] {
			consider(noun, t)
		}
	}
	sort.SliceStable(close, func(i, j int) bool { return close[i].distance < close[j].distance })
	for _, c := range close {
		add(c.thing)
	}
	return out
}

// describes says whether the word names no thing: a colour, a material and so
// on that the model knows, a common adjective, or a function word.
func (v *Vocabulary) describes(word string) bool {
	if len(word) < 3 {
		return true
	}
	same := func(phrase string) bool {
		return slices.ContainsFunc(splitWords(phrase), func(w string) bool { return sameNoun(word, w) })
	}
	for _, m := range []map[string][]string{v.Colours, v.Materials, v.Patterns} {
		for key, list := range m {
			if same(key) || slices.ContainsFunc(list, same) {
				return true
			}
		}
	}
	for _, list := range v.Parts {
		if slices.ContainsFunc(list, same) {
			return true
		}
	}
	return slices.ContainsFunc(v.Fillers, same) || slices.Contains(descriptions, word)
}

// examples picks things from the whole list, evenly spaced.
func (v *Vocabulary) examples(n int) []string {
	all := sortedKeys(v.Things)
	n = min(n, len(all))
	out := make([]string, n)
	for i := range out {
		out[i] = all[i*len(all)/n]
	}
	return out
}

func enumerate(things []string) string {
	switch n := len(things); n {
	case 0:
		return ""
	case 1:
		return things[0]
	default:
		return strings.Join(things[:n-1], ", ") + " and " + things[n-1]
	}
}

// splitWords lower-cases and splits at everything but letters and digits.
func splitWords(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) })
}

// sameNoun says whether word is noun or its plural.
func sameNoun(word, noun string) bool {
	if word == noun {
		return true
	}
	for _, p := range plurals(noun) {
		if word == p {
			return true
		}
	}
	return false
}

// plurals are the possible English plurals of a noun; a wrong one does no
// harm, since nobody writes it.
func plurals(noun string) []string {
	out := []string{noun + "s"}
	switch {
	case strings.HasSuffix(noun, "s"), strings.HasSuffix(noun, "x"), strings.HasSuffix(noun, "ch"), strings.HasSuffix(noun, "sh"), strings.HasSuffix(noun, "o"):
		out = append(out, noun+"es")
	case strings.HasSuffix(noun, "y"):
		out = append(out, strings.TrimSuffix(noun, "y")+"ies")
	case strings.HasSuffix(noun, "fe"):
		out = append(out, strings.TrimSuffix(noun, "fe")+"ves")
	case strings.HasSuffix(noun, "f"):
		out = append(out, strings.TrimSuffix(noun, "f")+"ves")
	case strings.HasSuffix(noun, "man"):
		out = append(out, strings.TrimSuffix(noun, "man")+"men")
	}
	if stem, ok := strings.CutSuffix(noun, "us"); ok {
		out = append(out, stem+"i") // cacti
	}
	return out
}

// editDistance counts the insertions, deletions, substitutions and swaps of
// neighbours that turn a into b.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, previous, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range previous {
		previous[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(previous[j]+1, row[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, previous, row = previous, row, before
	}
	return previous[len(y)]
}
