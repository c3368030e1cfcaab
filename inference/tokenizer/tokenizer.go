// Package tokenizer turns prompts into token ids by the byte-level byte-pair
// encoding of CLIP (github.com/mlfoundations/open_clip, open_clip/tokenizer.py).
// The list of merges, the size of the vocabulary and the length of the context
// come from the model bundle.
package tokenizer

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// The special tokens are the last two ids of the vocabulary; spelled out in a
// prompt they stand for themselves, as in the original.
const (
	startText = "<start_of_text>"
	endText   = "<end_of_text>"
)

// Pad fills the context behind the end token. It is the id of "!" inside a
// word, not the end token.
const Pad = 0

// bytesInVocab are the ids before the merged strings: each byte, and each byte
// at the end of a word.
const bytesInVocab = 512

// endOfWord marks a symbol as the last one of a word.
const endOfWord = "</w>"

// Tokenizer encodes prompts. It is immutable and may be shared.
type Tokenizer struct {
	length     int
	start, end int32
	ids        map[string]int32   // symbol → id
	merges     map[[2]int32]merge // pair of ids → how they merge
	symbol     [256]string        // byte → printable character
}

type merge struct {
	rank, id int32
}

// New reads merges: a header line, then one merge "a b" a line, lowest rank
// first, of which the first vocab − 514 are used; gzip is recognised. length
// is the number of ids of a context.
func New(merges io.Reader, vocab, length int) (*Tokenizer, error) {
	if vocab < bytesInVocab+2 {
		return nil, fmt.Errorf("read merges: a vocabulary of %d cannot hold the %d ids of the bytes and two special ones", vocab, bytesInVocab)
	}
	if length < 2 {
		return nil, fmt.Errorf("read merges: a context of %d ids has no room for the start and the end", length)
	}
	t := &Tokenizer{
		length: length,
		start:  int32(vocab - 2),
		end:    int32(vocab - 1),
		ids:    make(map[string]int32, vocab),
		merges: make(map[[2]int32]merge, vocab-bytesInVocab),
	}
	t.addBytes()
	if err := t.addMerges(merges, vocab-bytesInVocab-2); err != nil {
		return nil, fmt.Errorf("read merges: %w", err)
	}
	return t, nil
}

// addBytes gives the 256 bytes their characters and their ids 0…511: first the
// bytes that are printable in Latin-1, which stand for themselves, then the
// others, which become U+0100 and up.
func (t *Tokenizer) addBytes() {
	printable := func(b int) bool { return b >= 33 && b <= 126 || b >= 161 && b <= 172 || b >= 174 }
	n := int32(0)
	add := func(b int, r rune) {
		t.symbol[b] = string(r)
		t.ids[string(r)] = n
		t.ids[string(r)+endOfWord] = n + 256
		n++
	}
	for b := range 256 {
		if printable(b) {
			add(b, rune(b))
		}
	}
	next := rune(256)
	for b := range 256 {
		if !printable(b) {
			add(b, next)
			next++
		}
	}
}

func (t *Tokenizer) addMerges(r io.Reader, want int) error {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = bufio.NewReader(z)
	}
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return err
		}
		return errors.New("the list is empty")
	}
	for rank := range want {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return err
			}
			return fmt.Errorf("the list has %d merges, the vocabulary needs %d", rank, want)
		}
		a, b, ok := strings.Cut(lines.Text(), " ")
		x, okA := t.ids[a]
		y, okB := t.ids[b]
		if !ok || !okA || !okB {
			return fmt.Errorf("line %d, %q, is not a pair of known symbols", rank+2, lines.Text())
		}
		id, known := t.ids[a+b]
		if !known {
			id = int32(bytesInVocab + rank)
			t.ids[a+b] = id
		}
		if _, twice := t.merges[[2]int32{x, y}]; twice {
			return fmt.Errorf("line %d, %q, occurs twice", rank+2, lines.Text())
		}
		t.merges[[2]int32{x, y}] = merge{int32(rank), id}
	}
	return nil
}

// Length is the number of ids of a context.
func (t *Tokenizer) Length() int { return t.length }

// Start and End are the special ids.
func (t *Tokenizer) Start() int32 { return t.start }

// End is the id after the last one of the prompt.
func (t *Tokenizer) End() int32 { return t.end }

// Encode returns the ids of a text without start, end and padding.
func (t *Tokenizer) Encode(text string) []int32 {
	var ids []int32
	for piece := range pieces(clean(text)) {
		switch piece {
		case startText:
			ids = append(ids, t.start)
		case endText:
			ids = append(ids, t.end)
		default:
			ids = t.encodePiece(ids, piece)
		}
	}
	return ids
}

// Context returns what the text encoder takes: start, the ids of the text, end
// and padding up to Length. A longer text is cut so that the end token is the
// last one; cut is the number of ids that were lost.
func (t *Tokenizer) Context(text string) (ids []int32, cut int) {
	body := t.Encode(text)
	if room := t.length - 2; len(body) > room {
		cut = len(body) - room
		body = body[:room]
	}
	ids = make([]int32, 0, t.length)
	ids = append(ids, t.start)
	ids = append(ids, body...)
	ids = append(ids, t.end)
	for len(ids) < t.length {
		ids = append(ids, Pad)
	}
	return ids, cut
}

// encodePiece appends the ids of one piece: its bytes, merged pair by pair,
// lowest rank first, each merge everywhere in the piece.
func (t *Tokenizer) encodePiece(ids []int32, piece string) []int32 {
	word := make([]int32, len(piece))
	for i := range len(piece) {
		s := t.symbol[piece[i]]
		if i == len(piece)-1 {
			s += endOfWord
		}
		word[i] = t.ids[s]
	}
	for len(word) > 1 {
		best, found := merge{}, false
		var pair [2]int32
		for i := range len(word) - 1 {
			p := [2]int32{word[i], word[i+1]}
			if m, ok := t.merges[p]; ok && (!found || m.rank < best.rank) {
				best, pair, found = m, p, true
			}
		}
		if !found {
			break
		}
		out := word[:0]
		for i := 0; i < len(word); i++ {
			if i+1 < len(word) && word[i] == pair[0] && word[i+1] == pair[1] {
				out = append(out, best.id)
				i++
			} else {
				out = append(out, word[i])
			}
		}
		word = out
	}
	return append(ids, word...)
}

// Decode is the text of ids, for people: special ids and padding at the end
// are left out, and words are separated by single spaces.
func (t *Tokenizer) Decode(ids []int32) string {
	symbols := make(map[int32]string, len(t.ids))
	for s, id := range t.ids {
		symbols[id] = s
	}
	bytes := make(map[rune]byte, 256)
	for b, s := range t.symbol {
		r, _ := utf8.DecodeRuneInString(s)
		bytes[r] = byte(b)
	}
	var out []byte
	for _, id := range ids {
		if id == t.start {
			continue
		}
		if id == t.end {
			break
		}
		s, last := strings.CutSuffix(symbols[id], endOfWord)
		for _, r := range s {
			out = append(out, bytes[r])
		}
		if last {
			out = append(out, ' ')
		}
	}
	return strings.TrimSuffix(string(out), " ")
}
