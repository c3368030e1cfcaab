package limits

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Words is a list of what prompts may not hold, read from a file that may
// change while the program runs. A line is a word or phrase, or a regular
// expression between slashes; "[name]" begins a class of rules, which is all
// that a refusal tells; "[adult: name]" begins one that does not hold in places
// meant for adults; "#" begins a comment.
//
// Matching is on a folded copy: NFKC, case folded, letters of other scripts and
// digits that look like Latin letters replaced, accents removed. Words match
// between word boundaries only, also when their letters are spaced out.
type Words struct {
	path string
	mu   sync.Mutex
	seen time.Time // modification time of what was read
	size int64
	last time.Time // of the last look at the file
	all  []rule
}

type rule struct {
	class string
	adult bool
	re    *regexp.Regexp
}

// lookEvery bounds how often the file is looked at.
const lookEvery = 2 * time.Second

// Open reads the list. An empty path is a list that refuses nothing.
func Open(path string) (*Words, error) {
	w := &Words{path: path}
	if path == "" {
		return w, nil
	}
	return w, w.read()
}

func (w *Words) read() error {
	f, err := os.Open(w.path)
	if err != nil {
		return fmt.Errorf("read the block list: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read the block list: %w", err)
	}
	rules, err := readRules(f)
	if err != nil {
		return fmt.Errorf("read the block list %q: %w", w.path, err)
	}
	w.all, w.seen, w.size = rules, info.ModTime(), info.Size()
	return nil
}

// Refresh reads the file again if it changed. On an error the old list holds.
func (w *Words) Refresh(now time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.path == "" || now.Sub(w.last) < lookEvery {
		return nil
	}
	w.last = now
	info, err := os.Stat(w.path)
	if err != nil {
		return fmt.Errorf("read the block list: %w", err)
	}
	if info.ModTime().Equal(w.seen) && info.Size() == w.size {
		return nil
	}
	return w.read()
}

// Match returns the class of the first rule that the text breaks, one that
// holds everywhere before one of the adult classes.
func (w *Words) Match(text string) (class string, adult, hit bool) {
	w.mu.Lock()
	rules := w.all
	w.mu.Unlock()
	if len(rules) == 0 {
		return "", false, false
	}
	folded := fold(text)
	for _, r := range rules {
		if hit && r.adult || !r.re.MatchString(folded) {
			continue
		}
		class, adult, hit = r.class, r.adult, true
		if !adult {
			break
		}
	}
	return class, adult, hit
}

func readRules(r io.Reader) ([]rule, error) {
	var rules []rule
	class, adult := "blocked words", false
	in := bufio.NewScanner(r)
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(in.Text(), "\ufeff"))
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[' && line[len(line)-1] == ']':
			class, adult = strings.CutPrefix(strings.TrimSpace(line[1:len(line)-1]), "adult:")
			class = strings.TrimSpace(class)
		case len(line) > 2 && line[0] == '/' && line[len(line)-1] == '/':
			re, err := regexp.Compile(line[1 : len(line)-1])
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			rules = append(rules, rule{class, adult, re})
		default:
			re, err := regexp.Compile(wordPattern(fold(line)))
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			rules = append(rules, rule{class, adult, re})
		}
	}
	return rules, in.Err()
}

// wordPattern matches a phrase between boundaries, its letters possibly spaced
// out by single blanks, dots, dashes, underscores or asterisks.
func wordPattern(phrase string) string {
	var b strings.Builder
	b.WriteString(`(?:^|[^\pL\pN])`)
	for i, r := range []rune(phrase) {
		if r == ' ' {
			b.WriteString(`[\s._*-]+`)
			continue
		}
		if i > 0 && !strings.HasSuffix(b.String(), "+") {
			b.WriteString(`[\s._*-]?`)
		}
		b.WriteString(regexp.QuoteMeta(string(r)))
	}
	b.WriteString(`(?:$|[^\pL\pN])`)
	return b.String()
}

// lookalikes are characters of other scripts, digits and signs that are used in
// place of Latin letters (a small part of Unicode's confusables table, UTS 39).
var lookalikes = func() map[rune]rune {
	m := map[rune]rune{}
	for latin, others := range map[rune]string{
		'a': "аαⱥ@4", 'b': "вь8", 'c': "сϲ", 'd': "ԁ", 'e': "еε3є", 'g': "ɡ9", 'h': "һн", 'i': "іıι1", 'j': "ј", 'k': "кκ",
		'l': "ӏ", 'm': "м", 'n': "ոп", 'o': "оοσ0", 'p': "рρ", 'q': "ԛ", 'r': "г", 's': "ѕ5$", 't': "тτ7", 'u': "υս", 'v': "ν",
		'w': "ԝω", 'x': "хχ", 'y': "уγ", 'z': "2",
	} {
		for _, r := range others {
			m[r] = latin
		}
	}
	return m
}()

func fold(s string) string {
	s = cases.Fold().String(norm.NFKD.String(s))
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		if l, ok := lookalikes[r]; ok {
			return l
		}
		return r
	}, s)
}
