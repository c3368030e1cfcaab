package main

import (
	"strings"
	"testing"
)

// On a terminal an empty answer keeps the default, and what is set is not asked for.
func TestInitAsks(t *testing.T) {
	values := map[string]string{"data": "/srv/dream"}
	var out strings.Builder
	if err := ask(strings.NewReader("\n redis://queue:6379 \n"), &out, values); err != nil {
		t.Fatal(err)
	}
	if len(values) != 2 || values["queue.url"] != "redis://queue:6379" {
		t.Errorf("%v", values)
	}
	if s := out.String(); strings.Contains(s, "data [") || !strings.Contains(s, "web.listen [127.0.0.1:7860]: ") || !strings.Contains(s, "storage.url [") {
		t.Errorf("it asks\n%s", s)
	}
}
