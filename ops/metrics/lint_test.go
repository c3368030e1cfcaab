package metrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"dreamcad/bots/delivery"
	"dreamcad/queue"
)

func TestNames(t *testing.T) {
	r := NewRegistry("1", func() View { return full })
	NewStages(r).Finished(queue.Mesh, map[string]float64{"optimise": 20})
	delivery.NewMetrics(r)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
