package models

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func vocabulary() *Description {
	return &Description{Name: "toy", Knows: &Knows{
		Things:    []string{"mug", "pine tree", "fish", "teddy bear", "cactus", "snowman", "candy", "sword", "table", "hammer"},
		Synonyms:  map[string]string{"coffee mug": "mug", "cup": "mug"},
		Related:   map[string][]string{"dog": {"teddy bear"}, "chess piece": {"snowman"}},
		Colours:   []string{"red"},
		Materials: []string{"wooden"},
		Parts:     []string{"handle"},
	}}
}

func TestNotice(t *testing.T) {
	d := vocabulary()
	for _, prompt := range []string{
		"a mug", "Mug", "MUGS", "two coffee mugs, 3d asset", "a cup of tea", "the red cups", "mug for coffee", "wooden mug",
		"a pine tree", "Pine trees!", "fishes", "cacti", "cactuses", "snowmen", "candies", "a mug on a table",
		"a photo of a mug", "a 3d model of a wooden mug", "with a red handle: a mug", "mug,red", "a mug-shaped thing", "  ", "",
	} {
		if s, ok := d.Notice(prompt); ok {
			t.Errorf("%q: %s", prompt, s)
		}
	}
	for prompt, want := range map[string]string{
		"a dog":                      "nearest are: teddy bear.",
		"Dogs in the snow":           "nearest are: teddy bear.",
		"a chess piece":              "nearest are: snowman.",
		"a wooden hamer":             "nearest are: hammer.",
		"sowrd":                      "nearest are: sword.",
		"a bear":                     "nearest are: teddy bear.",
		"quantum entanglement":       "some are: mug, teddy bear and candy.",
		"a dragon with a red sword":  "and of this prompt only sword.",
		"an astronaut riding a fish": "and of this prompt only fish.",
		"你好":                         "some are: ",
	} {
		s, ok := d.Notice(prompt)
		if !ok || !strings.HasSuffix(s, want) && !strings.Contains(s, want) {
			t.Errorf("%q: %q, want %q", prompt, s, want)
		}
		if !strings.HasPrefix(s, "The model toy knows 10 kinds of things") || strings.Count(s, ".") != 1 {
			t.Errorf("%q: %q is not one sentence", prompt, s)
		}
	}
	d.Knows = nil
	if s, ok := d.Notice("a dog"); ok {
		t.Errorf("an open vocabulary: %s", s)
	}
}

// What the embedded model says about what it knows and does not.
func TestMiniNotice(t *testing.T) {
	b := openMini(t)
	for _, thing := range b.Knows.Things {
		for _, p := range []string{thing, "a red " + thing, "The " + strings.ToUpper(thing), thing + "s made of wood"} {
			if s, ok := b.Notice(p); ok {
				t.Errorf("%q: %s", p, s)
			}
		}
	}
	for prompt, near := range map[string]string{
		"a dragon": "fish", "a dog": "teddy bear", "a motorcycle": "car", "a banana": "pear",
		"an astronaut riding a horse": "robot", "a skyscraper": "tower", "a gitar": "guitar",
	} {
		if s, ok := b.Notice(prompt); !ok || !strings.Contains(s, near) {
			t.Errorf("%q: %q, want %q in it", prompt, s, near)
		}
	}
}

func TestNoticeProperty(t *testing.T) {
	b := openMini(t)
	rapid.Check(t, func(t *rapid.T) {
		s, ok := b.Notice(rapid.String().Draw(t, "prompt"))
		if ok != (s != "") || !utf8.ValidString(s) || len(s) > 300 {
			t.Fatalf("%q, %v", s, ok)
		}
	})
}
