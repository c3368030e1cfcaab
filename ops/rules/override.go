package rules

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"dreamcad/queue"
)

// governed are the rules whose thresholds the governor acts on too: they are set
// by Limits, so that the alert and the action cannot part.
var governed = []string{"gpu_warm", "gpu_hot", "gpu_margin"}

// Override returns the rules changed by lines of the form
//
//	CODE WORD…
//
// with the words fire=X, clear=X (in the rule's unit), hold=5s, clear_hold=5s,
// severity=info|warning|critical, and off, which removes the rule.
func Override(rs []Rule, lines []string) ([]Rule, error) {
	rs = slices.Clone(rs)
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		i := slices.IndexFunc(rs, func(r Rule) bool { return r.Code == words[0] })
		if i < 0 {
			return nil, fmt.Errorf("there is no rule %q (dream ops rules lists them)", words[0])
		}
		if slices.Contains(words[1:], "off") {
			if len(words) > 2 {
				return nil, fmt.Errorf("rule %s: off stands alone", words[0])
			}
			rs = slices.Delete(rs, i, i+1)
			continue
		}
		for _, word := range words[1:] {
			if err := rs[i].set(word); err != nil {
				return nil, fmt.Errorf("rule %s: %w", words[0], err)
			}
		}
	}
	for i := range rs {
		if r := &rs[i]; r.Below && r.Clear < r.Fire || !r.Below && r.Clear > r.Fire {
			return nil, fmt.Errorf("rule %s: it would end at %g %s before it begins at %g", r.Code, r.Clear, r.Unit, r.Fire)
		}
	}
	return rs, nil
}

func (r *Rule) set(word string) (err error) {
	name, value, _ := strings.Cut(word, "=")
	number := func(into *float64) {
		if slices.Contains(governed, r.Code) {
			err = fmt.Errorf("set ops.%s to change its threshold", r.Code)
			return
		}
		switch *into, err = strconv.ParseFloat(value, 64); {
		case err != nil:
			err = fmt.Errorf("%s is not a number", word)
		case math.IsNaN(*into) || math.IsInf(*into, 0): // nothing is above it: the rule would be off and seem on
			err = fmt.Errorf("%s is not a number that can be reached; off switches a rule off", word)
		case strings.HasPrefix(r.Unit, "%") && (*into < 0 || *into > 100):
			err = fmt.Errorf("%s is not a percentage", word)
		}
	}
	span := func(into *time.Duration) {
		if *into, err = time.ParseDuration(value); err == nil && *into < 0 {
			err = fmt.Errorf("%s is negative", word)
		}
	}
	switch name {
	case "fire":
		number(&r.Fire)
	case "clear":
		number(&r.Clear)
	case "hold":
		span(&r.Hold)
	case "clear_hold":
		span(&r.ClearHold)
	case "severity":
		r.Severity = queue.Severity(value)
		if !slices.Contains([]queue.Severity{queue.Info, queue.Warning, queue.Critical}, r.Severity) {
			err = fmt.Errorf("severity %q is not info, warning or critical", value)
		}
	default:
		err = fmt.Errorf("%q is unknown; possible are fire=, clear=, hold=, clear_hold=, severity= and off", word)
	}
	return err
}
