package bots

import (
	"fmt"
	"testing"
)

// Nothing is kept for each of many interactions.
func TestRecent(t *testing.T) {
	var r Recent
	for i := range 100_000 {
		if !r.Add(fmt.Sprint(i)) || r.Add(fmt.Sprint(i)) {
			t.Fatal("an id is not known at once")
		}
	}
	if len(r.young)+len(r.old) > 2*recentSize {
		t.Errorf("%d ids are kept", len(r.young)+len(r.old))
	}
}
