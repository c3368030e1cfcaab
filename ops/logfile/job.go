package logfile

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Found is what the search for a job's lines saw.
type Found struct {
	Lines int
	Jobs  []string // whose ids end so, sorted; of several no line is written
	Files int      // looked into
	// Missing are places at which nothing is.
	Missing []string
	// Trouble tells of files and folders that could not be read, or not to their end.
	Trouble []error
}

// line is one record of a log, as it was written.
type line struct {
	at   time.Time
	text []byte
}

// Job writes the lines that are about a job, in the order of their times: those
// whose attribute "job" is or ends in id, and others that name the job. Places
// are log files (older files and those of other processes included) or folders,
// whose files *.log and *.log.gz count, also deeper down. An error is that of w.
func Job(w io.Writer, places []string, id string) (Found, error) {
	s := search{id: strings.ToUpper(id), jobs: map[string]bool{}, seen: map[string]bool{}}
	for _, place := range places {
		for _, f := range s.filesOf(place) {
			s.read(f)
		}
	}
	s.found.Jobs = slices.Sorted(maps.Keys(s.jobs))
	if len(s.jobs) > 1 {
		return s.found, nil
	}
	slices.SortStableFunc(s.lines, func(a, b line) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	for _, l := range s.lines {
		if _, err := w.Write(l.text); err != nil {
			return s.found, err
		}
		s.found.Lines++
	}
	return s.found, nil
}

type search struct {
	id    string // in capitals, as ids are
	found Found
	jobs  map[string]bool
	lines []line
	seen  map[string]bool // real paths
}

func (s *search) trouble(doing string, err error) {
	s.found.Trouble = append(s.found.Trouble, fmt.Errorf("%s: %w", doing, err))
}

// filesOf lists the log files of a place.
func (s *search) filesOf(place string) []string {
	info, err := os.Stat(place)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		s.trouble("look for log files", err)
		return nil
	case err == nil && info.IsDir():
		return s.filesBelow(place)
	}
	files, err := Files(place)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.trouble("look for log files", err)
	}
	if len(files) == 0 {
		s.found.Missing = append(s.found.Missing, place)
	}
	return files
}

func (s *search) filesBelow(dir string) []string {
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		dir = target // the walk follows no links
	}
	var out []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			s.trouble("look for log files", err)
		case !e.IsDir() && (strings.HasSuffix(path, ".log") || strings.HasSuffix(path, ".log.gz")):
			out = append(out, path)
		}
		return nil
	})
	return slices.DeleteFunc(out, func(name string) bool { return slices.Contains(out, name+".gz") }) // compressed, and about to be removed
}

// read looks through one file, once.
func (s *search) read(path string) {
	where, err := filepath.EvalSymlinks(path)
	if err == nil {
		where, err = filepath.Abs(where)
	}
	if err != nil {
		where = path
	}
	if s.seen[where] {
		return
	}
	s.seen[where] = true
	s.found.Files++
	if err := s.scan(path); err != nil {
		s.trouble(fmt.Sprintf("read the log file %q", path), err)
	}
}

func (s *search) scan(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, ".gz") {
		path += ".gz" // it was compressed since it was listed
		f, err = os.Open(path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	}
	b := bufio.NewReader(r)
	for {
		text, err := b.ReadBytes('\n')
		s.take(text)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ids finds what is formed as the id of a job.
var ids = regexp.MustCompile(`\b[0-9A-HJKMNP-TV-Z]{26}\b`)

// take keeps the line if it is about the job. One that was cut short by a crash
// is no JSON and skipped.
func (s *search) take(text []byte) {
	if !bytes.Contains(bytes.ToUpper(text), []byte(s.id)) {
		return
	}
	var about struct {
		Time time.Time `json:"time"`
		Job  string    `json:"job"`
	}
	if json.Unmarshal(text, &about) != nil {
		return
	}
	of := map[string]bool{}
	if strings.HasSuffix(strings.ToUpper(about.Job), s.id) {
		of[about.Job] = true
	} else { // alerts and messages name it elsewhere
		for _, id := range ids.FindAll(text, -1) {
			if bytes.HasSuffix(id, []byte(s.id)) {
				of[string(id)] = true
			}
		}
	}
	if len(of) == 0 {
		return
	}
	maps.Copy(s.jobs, of)
	if text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	s.lines = append(s.lines, line{about.Time, text})
}
