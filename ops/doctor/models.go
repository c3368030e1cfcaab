package doctor

import (
	"context"
	"fmt"
	"strings"

	"dreamcad/inference/models"
)

// modelChecks looks at the models that are here; quick leaves out the digests.
func modelChecks(ctx context.Context, s *models.Store, quick, card bool) []Result {
	if s == nil {
		return []Result{{Code: "models", Title: "Models", Verdict: Unknown, Text: "They were not looked at."}}
	}
	list, err := s.List()
	if err != nil {
		return []Result{{Code: "models", Title: "Models", Verdict: Fail, Text: fmt.Sprintf("They cannot be listed: %v.", err), Do: "Check models.dir."}}
	}
	var out []Result
	for i := range list {
		if list[i].Where != "" {
			out = append(out, model(ctx, s, &list[i], quick))
			continue
		}
		r := Result{Code: "models", Title: "Model " + list[i].Name, Verdict: Pass, Text: "It is not here; it can be pulled."}
		if card {
			r.Verdict, r.Do = Warn, fmt.Sprintf("A card can serve it: dream models pull %s.", list[i].Name)
		}
		out = append(out, r)
	}
	return out
}

func model(ctx context.Context, s *models.Store, l *models.Listed, quick bool) Result {
	r := Result{Code: "models", Title: "Model " + l.Name, Verdict: Pass}
	again := fmt.Sprintf("Fetch it again: dream models pull %s --again.", l.Name)
	if l.Err != nil {
		r.Verdict, r.Text, r.Do = Fail, fmt.Sprintf("It cannot be opened: %v.", l.Err), again
		return r
	}
	if quick {
		r.Verdict, r.Text = Unknown, l.Where+"; its digests were not computed (--quick)."
		return r
	}
	b, err := s.Open(l.Name)
	if err != nil {
		r.Verdict, r.Text, r.Do = Fail, fmt.Sprintf("It cannot be opened: %v.", err), again
		return r
	}
	found, err := s.Verify(ctx, b, nil)
	if err != nil {
		r.Verdict, r.Text = Unknown, fmt.Sprintf("Its files were not read to the end: %v.", err)
		return r
	}
	var bad []string
	for _, f := range found {
		if !f.OK {
			bad = append(bad, f.Check+": "+f.Text)
		}
	}
	if len(bad) > 0 {
		r.Verdict, r.Text, r.Do = Fail, strings.Join(bad, "; ")+".", again
		return r
	}
	r.Text = fmt.Sprintf("%s; digests and all tensors are right.", l.Where)
	return r
}
