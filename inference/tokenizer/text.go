package tokenizer

import (
	"html"
	"iter"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

// clean prepares a prompt as open_clip does: repair the text, resolve HTML
// entities twice, collapse white space, lower-case.
func clean(s string) string {
	s = html.UnescapeString(html.UnescapeString(repair(s)))
	return cases.Lower(language.Und).String(strings.Join(strings.Fields(s), " "))
}

var terminalEscape = regexp.MustCompile(`\x1b\[((?:\d|;)*)([a-zA-Z])`)

// straight undoes what word processors and phones do to typed text: curled
// quotes, ligatures, full-width spaces, exotic line ends.
var straight = strings.NewReplacer(
	"\u02bc", "'", "\u2018", "'", "\u2019", "'", "\u201a", "'", "\u201b", "'",
	"\u201c", `"`, "\u201d", `"`, "\u201e", `"`, "\u201f", `"`,
	"\u0132", "IJ", "\u0133", "ij", "\u0149", "'n", "\u01c4", "D\u017d", "\u01c5", "D\u017e", "\u01c6", "d\u017e", "\u01c7", "LJ", "\u01c8", "Lj", "\u01c9", "lj",
	"\u01ca", "NJ", "\u01cb", "Nj", "\u01cc", "nj", "\u01f1", "DZ", "\u01f2", "Dz", "\u01f3", "dz",
	"\ufb00", "ff", "\ufb01", "fi", "\ufb02", "fl", "\ufb03", "ffi", "\ufb04", "ffl", "\ufb05", "\u017ft", "\ufb06", "st",
	"\u3000", " ", "\r\n", "\n", "\r", "\n", "\u2028", "\n", "\u2029", "\n", "\u0085", "\n",
)

// repair does what the library ftfy does to text that was decoded rightly, and
// is the identity for printable ASCII: entities outside mark-up, terminal
// escapes, ligatures, full-width forms, curled quotes, line ends, control
// characters, canonical composition. Undoing wrong decodings ("Ã©" for "é"),
// ftfy's main trade, is left out: prompts arrive as UTF-8, and invalid bytes
// become U+FFFD.
func repair(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if !strings.Contains(s, "<") {
		s = html.UnescapeString(s)
	}
	s = terminalEscape.ReplaceAllString(s, "")
	var b strings.Builder
	for _, r := range straight.Replace(s) {
		switch {
		case r >= 0xff01 && r <= 0xffef: // full and half width
			b.WriteString(norm.NFKC.String(string(r)))
		case r == '\ufeff', r >= 0x206a && r <= 0x206f, r >= 0xfff9 && r <= 0xfffc,
			r < 0x20 && r != '\t' && r != '\n' && r != '\f', r == 0x7f:
		default:
			b.WriteRune(r)
		}
	}
	return norm.NFC.String(b.String())
}

var contractions = []string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

// pieces splits cleaned text into what is encoded by itself: the special
// tokens, English contractions, runs of letters, single numbers, runs of
// anything else but space. The first alternative that fits at a place wins.
func pieces(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(s) > 0 {
			n := pieceLen(s)
			if n == 0 { // white space
				_, size := utf8.DecodeRuneInString(s)
				s = s[size:]
				continue
			}
			if !yield(s[:n]) {
				return
			}
			s = s[n:]
		}
	}
}

// pieceLen is the length of the piece that s begins with, 0 at white space.
func pieceLen(s string) int {
	for _, special := range []string{startText, endText} {
		if strings.HasPrefix(s, special) {
			return len(special)
		}
	}
	for _, c := range contractions {
		if strings.HasPrefix(s, c) {
			return len(c)
		}
	}
	first, size := utf8.DecodeRuneInString(s)
	switch {
	case unicode.IsSpace(first):
		return 0
	case unicode.IsLetter(first):
		return run(s, unicode.IsLetter)
	case unicode.IsNumber(first):
		return size
	}
	return run(s, func(r rune) bool { return !unicode.IsSpace(r) && !unicode.IsLetter(r) && !unicode.IsNumber(r) })
}

// run is the length of the longest beginning of s of characters that are in.
func run(s string, in func(rune) bool) int {
	for i, r := range s {
		if !in(r) {
			return i
		}
	}
	return len(s)
}
