package models

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func vocabulary() *Description {
	return &Description{Name: "toy", Vocabulary: &Vocabulary{
		Things: map[string][]string{"mug": {"mug", "coffee mug", "cup"}, "pine tree": nil, "fish": nil, "teddy bear": nil, "cactus": nil,
			"snowman": nil, "candy": nil, "sword": nil, "table": nil, "hammer": nil},
		Related:   map[string][]string{"chess piece": {"snowman"}, "dog": {"teddy bear"}},
		Colours:   map[string][]string{"teal": {"turquoise"}},
		Materials: map[string][]string{"wood": {"wooden"}},
		Parts:     map[string][]string{"mug": {"handle"}, "goblet": {"cup"}},
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
		"quantum entanglement":       "some are: cactus, hammer and snowman.",
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
	d.Vocabulary = nil
	if s, ok := d.Notice("a dog"); ok {
		t.Errorf("an open vocabulary: %s", s)
	}
}

// What the embedded model says about what it knows and does not.
func TestMiniNotice(t *testing.T) {
	b := openMini(t)
	for thing := range b.Vocabulary.Things {
		for _, p := range []string{thing, "a red " + thing, "The " + strings.ToUpper(thing), thing + "s made of wood"} {
			if s, ok := b.Notice(p); ok {
				t.Errorf("%q: %s", p, s)
			}
		}
	}
	for prompt, near := range map[string]string{
		"a dragon": "fish", "a horse": "teddy bear", "a motorcycle": "car", "a melon": "apple",
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
