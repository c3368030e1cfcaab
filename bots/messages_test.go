package bots

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dreamcad/bots/parse"
)

// Every translation has all keys of the English catalogue and of package parse
// and no others, with the same verbs in the same order.
func TestCatalogues(t *testing.T) {
	for lang, texts := range catalogues {
		for key := range english {
			if texts[key] == "" {
				t.Errorf("%s lacks %q", lang, key)
			}
		}
		for code := range parse.Sentences() {
			if lang != "en" && texts["parse."+code] == "" {
				t.Errorf("%s lacks %q", lang, "parse."+code)
			}
		}
	}
	for lang, texts := range catalogues {
		for key, text := range texts {
			source, ok := english[key]
			if code, isParse := strings.CutPrefix(key, "parse."); isParse {
				source, ok = parse.Sentences()[code]
			}
			if !ok {
				t.Errorf("%s: key %q is not in the English catalogue", lang, key)
				continue
			}
			if got, want := strings.Join(verbs.FindAllString(text, -1), " "), strings.Join(verbs.FindAllString(source, -1), " "); got != want {
				t.Errorf("%s: %q has verbs %q, English has %q", lang, key, got, want)
			}
		}
	}
}

// Every key that the code says is in the catalogue.
func TestKeys(t *testing.T) {
	said := regexp.MustCompile(`\.Say\("([a-z0-9.-]+)"[,)]`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range said.FindAllStringSubmatch(string(text), -1) {
			n++
			if _, ok := english[m[1]]; !ok {
				t.Errorf("%s says %q, which no catalogue has", f, m[1])
			}
		}
	}
	if n < 40 {
		t.Fatalf("only %d keys found: the pattern no longer fits", n)
	}
}

func TestNumbers(t *testing.T) {
	for want, got := range map[string]string{
		"0 waiting, 2 running, 1 worker.":       Lang("en").Say("queue", 0, 2, 1),
		"1 waiting, 1 running, 2 workers.":      Lang("en").Say("queue", 1, 1, 2),
		"1 wartet, 0 laufen, 1 Rechner.":        Lang("de").Say("queue", 1, 0, 1),
		"1 en espera, 1 en marcha, 1 equipo.":   Lang("es").Say("queue", 1, 1, 1),
		"1 of your jobs is waiting or running.": Lang("en").Say("quota.live", 1),
		"The daily limit of {a|b} is 1 job.":    Lang("en").Say("admin.quota", "{a|b}", 1), // what people write stays
	} {
		if got != want {
			t.Errorf("said %q, want %q", got, want)
		}
	}
}

func TestLanguage(t *testing.T) {
	for locale, want := range map[string]Lang{"de": "de", "de-CH": "de", "es_419": "es", "en-GB": "en", "fr": "en", "": "en"} {
		if got := Language(locale); got != want {
			t.Errorf("Language(%q) = %q, want %q", locale, got, want)
		}
	}
}

func TestEncode(t *testing.T) {
	e := Encoder{
		Plain: strings.ToUpper, User: func(s string) string { return "<" + s + ">" },
		When: PlainText.When, Person: func(s string) string { return "@" + s },
	}
	got := e.Encode("hi " + Person("42") + ": " + User("a *mug*\ue001\ue000 @everyone") + " ok")
	if want := "HI @42: <a *mug* @everyone> OK"; got != want {
		t.Errorf("Encode = %q, want %q", got, want)
	}
	if got := e.Encode(string(userOpen) + "unclosed"); got != "<unclosed>" {
		t.Errorf("unclosed mark: %q", got)
	}
}

func TestCut(t *testing.T) {
	for in, want := range map[string]string{"short": "short", "0123456789": "0123456789", "0123456789ab": "012345678…", "12345678e\u0301\u0301\u0301": "12345678…"} {
		if got := Cut(in, 10); got != want {
			t.Errorf("Cut(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestButtons(t *testing.T) {
	var c Command
	if err := ParseButton(ButtonID(parse.Cancel, "01J"), &c); err != nil || c.Verb != parse.Cancel || c.Job != "01J" {
		t.Errorf("cancel: %+v, %v", c, err)
	}
	if err := ParseButton(ButtonID(parse.Ack, "gpu.hot:host:0"), &c); err != nil || c.Alert != [2]string{"gpu.hot", "host:0"} {
		t.Errorf("ack: %+v, %v", c, err)
	}
	for _, bad := range []string{"", "v1", "v1:cancel:", "v2:cancel:x", "v1:dream:x", "v1:admin:pause", "x:y:z"} {
		if err := ParseButton(bad, &c); err == nil {
			t.Errorf("button %q was taken", bad)
		}
	}
	if a, b := Nonce("job", "done"), Nonce("job", "failed"); len(a) != 25 || a == b {
		t.Errorf("nonces %q, %q", a, b)
	}
}

func TestReachable(t *testing.T) {
	for address, want := range map[string]bool{
		"https://dream.example/r/1": true, "http://93.184.216.34:8080/x": true, "http://[2606:2800:220:1::1]/": true,
		"http://localhost:7860": false, "http://dreamhost/x": false, "http://127.0.0.1:9000/x": false, "http://10.1.2.3/x": false,
		"http://192.168.1.5": false, "http://[::1]/": false, "http://169.254.1.1/": false, "ftp://dream.example/": false, "javascript:alert(1)": false, "": false,
	} {
		if got := Reachable(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
	}
}
