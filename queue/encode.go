package queue

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// AppendJSON appends r as [json.Marshal] writes it, at a third of its cost:
// every submit pays for this.
func (r *Request) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	optional := func(name, s string) {
		if s != "" {
			b = appendText(append(b, name...), s)
			b = append(b, ',')
		}
	}
	optional(`"id":`, r.ID)
	optional(`"key":`, r.Key)
	b = appendText(append(b, `"prompt":`...), r.Prompt)
	b = append(b, ',')
	optional(`"negative":`, r.Negative)
	if r.Seed != nil {
		b = strconv.AppendInt(append(b, `"seed":`...), *r.Seed, 10)
		b = append(b, ',')
	}
	b = appendText(append(b, `"kind":`...), string(r.Kind))
	b = append(b, ',')
	optional(`"quality":`, string(r.Quality))
	if len(r.Formats) > 0 {
		b = append(b, `"formats":[`...)
		for i, f := range r.Formats {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, f)
		}
		b = append(b, `],`...)
	}
	optional(`"model":`, r.Model)
	if r.Private {
		b = append(b, `"private":true,`...)
	}
	b = appendText(append(b, `"class":`...), string(r.Class))
	b = appendText(append(b, `,"requester":{"platform":`...), r.Requester.Platform)
	b = appendText(append(b, `,"id":`...), r.Requester.ID)
	if r.Requester.Name != "" {
		b = appendText(append(b, `,"name":`...), r.Requester.Name)
	}
	b = r.Origin.AppendJSON(append(b, `},"origin":`...))
	b = append(b, ',')
	optional(`"parent":`, r.Parent)
	optional(`"tag":`, r.Tag)
	optional(`"batch":`, r.Batch)
	if r.Line != 0 {
		b = strconv.AppendInt(append(b, `"line":`...), r.Line, 10)
		b = append(b, ',')
	}
	b[len(b)-1] = '}' // in place of the last comma
	return b
}

// AppendJSON appends o as [json.Marshal] writes it.
func (o *Origin) AppendJSON(b []byte) []byte {
	b = appendText(append(b, `{"platform":`...), o.Platform)
	for _, f := range [...]struct{ name, s string }{{`,"channel":`, o.Channel}, {`,"thread":`, o.Thread}, {`,"message":`, o.Message}} {
		if f.s != "" {
			b = appendText(append(b, f.name...), f.s)
		}
	}
	if len(o.Extra) > 0 {
		sep := `,"extra":{`
		for _, k := range slices.Sorted(maps.Keys(o.Extra)) {
			b = appendText(append(b, sep...), k)
			b = appendText(append(b, ':'), o.Extra[k])
			sep = ","
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendText appends s as a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			j, err := json.Marshal(s)
			if err != nil {
				panic(err) // a string always marshals
			}
			return append(b, j...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
