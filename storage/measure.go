package storage

import (
	"context"
	"errors"
	"strings"
)

// Amount counts objects and their bytes.
type Amount struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (a *Amount) add(size int64) {
	a.Objects++
	a.Bytes += size
}

// Usage is what a store holds.
type Usage struct {
	Jobs        int    `json:"jobs"`
	Results     Amount `json:"results"`     // manifests and the files that they name
	Attempts    Amount `json:"attempts"`    // files of attempts that no manifest names
	Checkpoints Amount `json:"checkpoints"` // of running and interrupted jobs
	Other       Amount `json:"other"`
}

// Measure adds up everything that is stored. It reads each job's manifest.
func Measure(ctx context.Context, s Store) (Usage, error) {
	var u Usage
	var job, winner string
	var pending map[string]Amount // of the job at hand, by attempt
	settle := func() {
		for lease, a := range pending {
			into := &u.Attempts
			if lease == winner {
				into = &u.Results
			}
			into.Objects += a.Objects
			into.Bytes += a.Bytes
		}
		pending = map[string]Amount{}
	}
	for info, err := range s.List(ctx, "") {
		if err != nil {
			return u, err
		}
		j, folder, name, ok := splitJobKey(info.Key)
		if !ok || !strings.HasPrefix(info.Key, jobsPrefix) {
			u.Other.add(info.Size)
			continue
		}
		if j != job {
			settle()
			job, winner = j, ""
			u.Jobs++
			m, err := ReadManifest(ctx, s, j)
			switch {
			case err == nil:
				winner = m.Attempt
			case errors.Is(err, ErrUnavailable) || ctx.Err() != nil:
				return u, err
			}
		}
		switch folder {
		case ckptFolder:
			u.Checkpoints.add(info.Size)
		case "":
			if name == resultName {
				u.Results.add(info.Size)
			} else {
				u.Other.add(info.Size)
			}
		default:
			a := pending[folder]
			a.add(info.Size)
			pending[folder] = a
		}
	}
	settle()
	return u, nil
}
