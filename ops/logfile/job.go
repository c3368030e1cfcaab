package logfile

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Job writes the lines of the log at path, older files included, that are about
// the job: those whose attribute "job" is or ends in id. It returns how many.
func Job(w io.Writer, path, id string) (int, error) {
	files, err := Files(path)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, f := range files {
		found, err := jobLines(w, f, id)
		n += found
		if err != nil {
			return n, fmt.Errorf("read the log file %q: %w", f, err)
		}
	}
	return n, nil
}

func jobLines(w io.Writer, path, id string) (n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return 0, err
		}
		defer z.Close()
		r = z
	}
	b := bufio.NewReader(r)
	for {
		line, err := b.ReadBytes('\n')
		var about struct {
			Job string `json:"job"`
		}
		// A line cut short by a crash is no JSON: it is skipped.
		if json.Unmarshal(line, &about) == nil && about.Job != "" && strings.HasSuffix(strings.ToLower(about.Job), strings.ToLower(id)) {
			if _, err := w.Write(line); err != nil {
				return n, err
			}
			n++
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}
