package queue

import (
	"encoding/json"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// TestAppendJSON compares the written-out encoder with the package's: every
// subset of the fields, any text.
func TestAppendJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Request
		fill(t, reflect.ValueOf(&r).Elem())
		want, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.AppendJSON(nil); string(got) != string(want) {
			t.Fatalf("\n got %s\nwant %s", got, want)
		}
	})
}

// fill draws each field of a struct, zero as often as not.
func fill(t *rapid.T, v reflect.Value) {
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		if f.Kind() != reflect.Struct && rapid.Bool().Draw(t, name) {
			continue
		}
		switch f.Kind() {
		case reflect.Struct:
			fill(t, f)
		case reflect.String:
			f.SetString(texts.Draw(t, name))
		case reflect.Int64:
			f.SetInt(rapid.Int64().Draw(t, name))
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
			f.Elem().SetInt(rapid.Int64().Draw(t, name))
		case reflect.Slice:
			f.Set(reflect.ValueOf(rapid.SliceOf(texts).Draw(t, name)))
		case reflect.Map:
			f.Set(reflect.ValueOf(rapid.MapOf(texts, texts).Draw(t, name)))
		default:
			t.Fatalf("no rule for field %s", name)
		}
	}
}

// texts are plain, with characters that JSON escapes, and not UTF-8.
var texts = rapid.OneOf(rapid.StringMatching(`[ -~]{0,20}`), rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))

// TestFingerprint: the quarantined inputs of a running service are known by it.
func TestFingerprint(t *testing.T) {
	seed := int64(7)
	for want, r := range map[string]Request{
		"UGJNABD2Z5XHZ65PWNV5DBXKEX": {Prompt: "a mug", Kind: Mesh, Quality: Draft, Model: "mini", Seed: &seed},
		"XKHD7NPK4UKQF2SWP4SQUWMGHD": {Prompt: "a „mug“ <1>", Negative: `"`, Kind: Views},
	} {
		if got := r.Fingerprint(); got != want {
			t.Errorf("fingerprint %s, want %s", got, want)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	seed := int64(7)
	r := Request{ID: "01JDM0000000000000000000", Prompt: "a ceramic coffee mug", Seed: &seed, Kind: Mesh, Quality: Draft, Model: "mini", Class: Interactive,
		Requester: Requester{Platform: "discord", ID: "1"}, Origin: Origin{Platform: "discord", Channel: "c", Extra: map[string]string{"k": "v"}}}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.AppendJSON(make([]byte, 0, 512))
		}
	})
	b.Run("json.Marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(&r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("fingerprint", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Fingerprint()
		}
	})
}
