package logfile

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// line is one record of a log, as it was written.
type line struct {
	at   time.Time
	text []byte
}

// Job writes the lines that are about a job, in the order of their times: those
// whose attribute "job" is or ends in id. Places are log files (older files and
// those of other processes included) or folders of such; one that is not there
// yet holds nothing. It returns how many lines there are.
func Job(w io.Writer, places []string, id string) (int, error) {
	var lines []line
	seen := map[string]bool{}
	for _, place := range places {
		files, err := placeFiles(place)
		if err != nil {
			return 0, err
		}
		for _, f := range files {
			if seen[f] {
				continue
			}
			seen[f] = true
			found, err := jobLines(f, id)
			if err != nil {
				return 0, fmt.Errorf("read the log file %q: %w", f, err)
			}
			lines = append(lines, found...)
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	for _, l := range lines {
		if _, err := w.Write(l.text); err != nil {
			return 0, err
		}
	}
	return len(lines), nil
}

// placeFiles lists the log files of a place.
func placeFiles(place string) ([]string, error) {
	info, err := os.Stat(place)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for log files: %w", err)
	}
	if err != nil || !info.IsDir() {
		files, err := Files(place)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return files, err
	}
	var out []string
	for _, pattern := range []string{"*.log", "*.log.gz"} {
		files, err := filepath.Glob(filepath.Join(place, pattern))
		if err != nil {
			return nil, fmt.Errorf("look for log files: %w", err)
		}
		out = append(out, files...)
	}
	return slices.DeleteFunc(out, func(name string) bool { return slices.Contains(out, name+".gz") }), nil
}

func jobLines(path, id string) ([]line, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, ".gz") {
		path += ".gz" // it was compressed since it was listed
		f, err = os.Open(path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	}
	var out []line
	b := bufio.NewReader(r)
	for {
		text, err := b.ReadBytes('\n')
		var about struct {
			Time time.Time `json:"time"`
			Job  string    `json:"job"`
		}
		// A line cut short by a crash is no JSON: it is skipped.
		if json.Unmarshal(text, &about) == nil && about.Job != "" && strings.HasSuffix(strings.ToLower(about.Job), strings.ToLower(id)) {
			out = append(out, line{about.Time, text})
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
