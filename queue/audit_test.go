package queue_test

import (
	"context"
	"slices"
	"testing"

	"dreamcad/queue"
)

type looks [][]string

func (l *looks) Audit(context.Context) ([]string, error) {
	now := slices.Clone((*l)[0])
	if len(*l) > 1 {
		*l = (*l)[1:]
	}
	return now, nil
}

func TestViolations(t *testing.T) {
	for _, c := range []struct {
		looks looks
		want  []string
	}{
		{looks{{}}, nil},
		{looks{{"a", "b"}, {"b", "c"}, {"b"}}, []string{"b"}},
		{looks{{"a"}, {"b"}, {"a"}}, nil},
	} {
		got, err := queue.Violations(t.Context(), &c.looks)
		if err != nil || !slices.Equal(got, c.want) && len(got)+len(c.want) > 0 {
			t.Errorf("%v %v, want %v", got, err, c.want)
		}
	}
}
