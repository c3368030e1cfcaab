package tokenizer

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// clip is the tokenizer of the full model. Its list of merges is not part of
// this repository: `make test` fetches it (fetch-clip-merges.sh) and names it
// in DREAM_CLIP_MERGES; a plain `go test` works when it has been fetched.
func clip(t testing.TB) *Tokenizer {
	t.Helper()
	const fetched = "../../.cache/clip-merges.txt.gz"
	path := os.Getenv("DREAM_CLIP_MERGES")
	if path == "" {
		path = fetched
		if _, err := os.Stat(path); err != nil {
			t.Skip("CLIP's merges are not here: run inference/tokenizer/fetch-clip-merges.sh .cache/clip-merges.txt.gz")
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatalf("DREAM_CLIP_MERGES names a file that is not there (inference/tokenizer/fetch-clip-merges.sh FILE fetches it): %v", err)
	}
	defer f.Close()
	tk, err := New(f, 49408, 77)
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

func mini(t testing.TB) *Tokenizer {
	t.Helper()
	f, err := os.Open("testdata/mini-merges.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tk, err := New(f, 1220, 32)
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

// The expected ids were computed by open_clip 2.7.0.
func TestCLIP(t *testing.T) {
	tk := clip(t)
	for _, c := range []struct {
		text string
		want []int32
	}{
		{"an astronaut riding a horse", []int32{550, 18376, 6765, 320, 4558}},
		{"an astronaut riding a horse, 3d asset", []int32{550, 18376, 6765, 320, 4558, 267, 274, 323, 13039}},
		{"Zombie bust, terror, 123dsculpt, bust, zombie", []int32{11819, 9959, 267, 9327, 267, 272, 273, 274, 67, 45044, 267, 9959, 267, 11819}},
		{"", nil},
		{" \t\n ", nil},
		{"don't STOP — café &amp; naïve 你好 🤖", []int32{847, 713, 1691, 2005, 15304, 261, 1097, 35689, 563, 47466, 254, 29290, 377, 46146}},
		// The same typed on a phone, with an entity escaped twice.
		{"don’t STOP — café &amp;amp; naïve 你好 🤖", []int32{847, 713, 1691, 2005, 15304, 261, 1097, 35689, 563, 47466, 254, 29290, 377, 46146}},
		{"a<end_of_text>b", []int32{320, 49407, 321}},
	} {
		if got := tk.Encode(c.text); !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.text, got, c.want)
		}
	}
	negative := "ugly, bad anatomy, blurry, pixelated obscure, unnatural colors, poor lighting, dull, and unclear, cropped, " +
		"lowres, low quality, artifacts, duplicate, morbid, mutilated, poorly drawn face, deformed, dehydrated, bad proportions"
	if got := tk.Encode(negative); len(got) != 54 {
		t.Errorf("the negative prompt has %d ids, want 54", len(got))
	}
	if ids, cut := tk.Context(negative + negative); len(ids) != 77 || ids[0] != 49406 || ids[76] != 49407 || cut != len(tk.Encode(negative+negative))-75 {
		t.Errorf("a long prompt: %v, %d cut", ids, cut)
	}
	if ids, cut := tk.Context(""); len(ids) != 77 || ids[0] != 49406 || ids[1] != 49407 || slices.Max(ids[2:]) != 0 || cut != 0 {
		t.Errorf("the empty prompt: %v, %d cut", ids, cut)
	}
}

// Random prompts with everything that people paste, as open_clip 2.32 encodes
// them (testdata/open_clip_cases.py).
func TestOpenCLIPCases(t *testing.T) {
	tk := clip(t)
	b, err := os.ReadFile("testdata/open_clip_cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Text string
		IDs  []int32
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 300 {
		t.Errorf("%d cases", len(cases))
	}
	for _, c := range cases {
		if got := tk.Encode(c.Text); !slices.Equal(got, c.IDs) {
			t.Errorf("%q: %q, want %q", c.Text, tk.Decode(got), tk.Decode(c.IDs))
		}
	}
}

// The expected contexts come from the run in PyTorch that made the goldens of
// the pilot model, whose merges testdata holds.
func TestMini(t *testing.T) {
	tk := mini(t)
	for text, want := range map[string][]int32{
		"a ceramic coffee mug":                   {1218, 320, 746, 751, 755, 1219},
		"a red and white striped vase, 3d asset": {1218, 320, 554, 890, 570, 681, 757, 267, 274, 323, 515, 1219},
		"A wooden chair with blue legs":          {1218, 320, 619, 642, 519, 544, 866, 1219},
		"  A  wooden\nchair   with BLUE legs ":   {1218, 320, 619, 642, 519, 544, 866, 1219},
		"":                                       {1218, 1219},
		"a red &amp;#38; white":                  slices.Concat([]int32{1218}, tk.Encode("a red & white"), []int32{1219}),
	} {
		got, cut := tk.Context(text)
		want = append(want, make([]int32, 32-len(want))...)
		if !slices.Equal(got, want) || cut != 0 {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestPieces(t *testing.T) {
	for text, want := range map[string][]string{
		"don't":                        {"don", "'t"},
		"it's 3d, 4k!":                 {"it", "'s", "3", "d", ",", "4", "k", "!"},
		"'stuff'":                      {"'s", "tuff", "'"},
		",'s":                          {",'", "s"},
		"12":                           {"1", "2"},
		"½ cup":                        {"½", "cup"},
		"a.<start_of_text>":            {"a", ".<", "start", "_", "of", "_", "text", ">"},
		"<start_of_text>x":             {"<start_of_text>", "x"},
		"\u00a0a\u2003b":               {"a", "b"},
		"caf\u00e9 你好":                 {"caf\u00e9", "你好"},
		"we'll they've i'm i'd you're": {"we", "'ll", "they", "'ve", "i", "'m", "i", "'d", "you", "'re"},
	} {
		if got := slices.Collect(pieces(text)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"A  Red\tMug\r\n":                 "a red mug",
		"&lt;b&gt; &amp;amp;":             "<b> &",
		"“curled” ‘quotes’":               `"curled" 'quotes'`,
		"ﬁne ｆｕｌｌ　ｗｉｄｔｈ":                  "fine full width",
		"nul\x00 bell\x07 del\x7f":        "nul bell del",
		"\x1b[31mred\x1b[0m mug":          "red mug",
		"e\u0301":                         "é",
		"bad \xff byte":                   "bad \ufffd byte",
		"\ufeffmark":                      "mark",
		"ΟΔΟΣ":                            "οδος",
		"!\"#$%'()*+,-./:;<=>?@[]^_`{|}~": "!\"#$%'()*+,-./:;<=>?@[]^_`{|}~",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestBadMerges(t *testing.T) {
	for name, c := range map[string]struct {
		merges string
		vocab  int
		want   string
	}{
		"empty":   {"", 515, "empty"},
		"short":   {"#v\na b\n", 516, "has 1 merges, the vocabulary needs 2"},
		"unknown": {"#v\nab c\n", 515, "not a pair of known symbols"},
		"one":     {"#v\nab\n", 515, "not a pair of known symbols"},
		"twice":   {"#v\na b\na b\n", 516, "twice"},
		"small":   {"#v\n", 513, "cannot hold"},
		"gzip":    {"\x1f\x8bnonsense", 515, "read merges: "},
	} {
		if _, err := New(strings.NewReader(c.merges), c.vocab, 8); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	if _, err := New(strings.NewReader("#v\n"), 514, 1); err == nil {
		t.Error("a context of one id was accepted")
	}
}

// Decoding gives the cleaned text back, but for the spaces between pieces.
func TestDecodeProperty(t *testing.T) {
	tk := mini(t)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		want := strings.Join(slices.Collect(pieces(clean(text))), "")
		if strings.Contains(want, "_text>") {
			t.Skip("special tokens are left out by Decode")
		}
		got := strings.ReplaceAll(tk.Decode(tk.Encode(text)), " ", "")
		if got != strings.ReplaceAll(want, " ", "") {
			t.Fatalf("%q became %q", want, got)
		}
		for _, id := range tk.Encode(text) {
			if id < 0 || id >= tk.Start() {
				t.Fatalf("id %d", id)
			}
		}
	})
}
