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
	if d.Vocabulary == nil {
		return "", false
	}
	l := newLexicon(d.Vocabulary)
	words := splitWords(prompt)
	subject := l.subject(words)
	if len(words) == 0 || len(l.named(subject)) > 0 {
		return "", false
	}
	kinds := fmt.Sprintf("The model %s knows %d kinds of things", d.Name, len(l.things))
	if others := l.named(words); len(others) > 0 {
		return fmt.Sprintf("%s, and of this prompt only %s.", kinds, enumerate(others)), true
	}
	if near := l.nearest(words, 3); len(near) > 0 {
		return fmt.Sprintf("%s and found none of them in this prompt; nearest are: %s.", kinds, enumerate(near)), true
	}
	return fmt.Sprintf("%s and found none of them in this prompt; some are: %s.", kinds, enumerate(l.examples(3))), true
}

// lexicon is a vocabulary made ready for one prompt. Its phrases are words in
// lower case with single spaces, the last one in singular and plural.
type lexicon struct {
	things  []string            // kinds, sorted
	names   map[string]string   // phrase → kind
	related map[string][]string // phrase → kinds that come nearest
	longest int                 // words of the longest phrase
	plain   map[string]bool     // words that describe
}

func newLexicon(v *Vocabulary) *lexicon {
	l := &lexicon{things: sortedKeys(v.Things), names: map[string]string{}, related: map[string][]string{}, plain: map[string]bool{}}
	for _, t := range l.things {
		for _, noun := range append([]string{t}, v.Things[t]...) {
			for _, p := range l.forms(noun) {
				if _, taken := l.names[p]; !taken {
					l.names[p] = t
				}
			}
		}
	}
	for _, source := range []map[string][]string{v.Related, hints} {
		for _, word := range sortedKeys(source) {
			for _, p := range l.forms(word) {
				l.related[p] = append(l.related[p], source[word]...)
			}
		}
	}
	describe := func(phrases ...string) {
		for _, p := range phrases {
			for _, w := range splitWords(p) {
				for _, form := range l.forms(w) {
					l.plain[form] = true
				}
			}
		}
	}
	for _, m := range []map[string][]string{v.Colours, v.Materials, v.Patterns} {
		for key, list := range m {
			describe(key)
			describe(list...)
		}
	}
	for _, list := range v.Parts {
		describe(list...)
	}
	describe(v.Fillers...)
	for _, w := range descriptions {
		l.plain[w] = true
	}
	return l
}

// forms are a noun of one or more words and its plurals.
func (l *lexicon) forms(noun string) []string {
	words := splitWords(noun)
	if len(words) == 0 {
		return nil
	}
	l.longest = max(l.longest, len(words))
	singular := strings.Join(words, " ")
	return append(plurals(singular), singular)
}

// describes says whether the word names no thing: a colour, a material and so
// on that the model knows, a common adjective, or a function word.
func (l *lexicon) describes(word string) bool { return len(word) < 3 || l.plain[word] }

// subject is the part of the words that says what the prompt is about: the
// first stretch between prepositions with a word that is more than a
// description; everything when there is none.
func (l *lexicon) subject(words []string) []string {
	start := 0
	for i := 0; i <= len(words); i++ {
		if i < len(words) && !slices.Contains(prepositions, words[i]) {
			continue
		}
		part := words[start:i]
		// A thing may also be a part of another: "cup" of a goblet.
		if len(l.named(part)) > 0 || slices.ContainsFunc(part, func(w string) bool { return !l.describes(w) }) {
			return part
		}
		start = i + 1
	}
	return words
}

// named lists the things that the words name, in their order; of overlapping
// names the longest counts.
func (l *lexicon) named(words []string) []string {
	var out []string
	for i := 0; i < len(words); {
		step := 1
		for n := min(l.longest, len(words)-i); n > 0; n-- {
			if thing, ok := l.names[strings.Join(words[i:i+n], " ")]; ok {
				if !slices.Contains(out, thing) {
					out = append(out, thing)
				}
				step = n
				break
			}
		}
		i += step
	}
	return out
}

// nearest lists up to most things that come close to a word of the prompt:
// those that are related to it, or else those spelled much like it.
func (l *lexicon) nearest(words []string, most int) []string {
	var out []string
	add := func(t string) {
		if _, known := slices.BinarySearch(l.things, t); known && len(out) < most && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	for i := range words {
		for n := min(l.longest, len(words)-i); n > 0; n-- {
			for _, t := range l.related[strings.Join(words[i:i+n], " ")] {
				add(t)
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
	for _, phrase := range sortedKeys(l.names) {
		parts := strings.Fields(phrase)
		if len(parts) > 1 {
			parts = append(parts, strings.Join(parts, ""))
		}
		for _, w := range words {
			for _, p := range parts {
				// The difference in length is a lower bound, and cheap.
				limit := utf8.RuneCountInString(w) / 3
				if l.describes(w) || len(w) > len(p)+4*limit || len(p) > len(w)+4*limit {
					continue
				}
				if d := editDistance(w, p); d <= limit {
					close = append(close, candidate{l.names[phrase], d})
				}
			}
		}
	}
	sort.SliceStable(close, func(i, j int) bool { return close[i].distance < close[j].distance })
	for _, c := range close {
		add(c.thing)
	}
	return out
}

// examples picks things from the whole list, evenly spaced.
func (l *lexicon) examples(n int) []string {
	n = min(n, len(l.things))
	out := make([]string, n)
	for i := range out {
		out[i] = l.things[i*len(l.things)/n]
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
