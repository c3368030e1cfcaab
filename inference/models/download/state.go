package download

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// state says which ranges of a part file are there. It is saved after each.
type state struct {
	path string
	mu   sync.Mutex

	URL      string `json:"url"`
	Bytes    int64  `json:"bytes"`
	Identity string `json:"identity"` // of the version on the server
	Chunk    int64  `json:"chunk"`
	Done     []bool `json:"done"`
}

func partPath(path string) string  { return path + ".part" }
func statePath(path string) string { return path + ".part.json" }

// discard forgets an unfinished download.
func discard(path string) error {
	for _, p := range []string{statePath(path), partPath(path)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Left returns how many bytes of the download of r to path are still missing:
// all of them when nothing usable is there.
func Left(r Remote, path string) int64 {
	if st, err := load(path, r); err == nil {
		return r.Bytes - st.doneBytes()
	}
	return r.Bytes
}

// openPart opens what an earlier run left of this version of the file, or
// starts anew.
func openPart(path string, r Remote, chunk int64) (*state, *os.File, error) {
	st, err := load(path, r)
	if err != nil {
		if err := discard(path); err != nil {
			return nil, nil, err
		}
		st = &state{path: path, URL: Redact(r.URL), Bytes: r.Bytes, Identity: r.identity(), Chunk: chunk, Done: make([]bool, (r.Bytes+chunk-1)/chunk)}
	}
	f, err := os.OpenFile(partPath(path), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, nil, err
	}
	if err := f.Truncate(r.Bytes); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return st, f, nil
}

// load reads the state beside path; the error says why it is of no use.
func load(path string, r Remote) (*state, error) {
	b, err := os.ReadFile(statePath(path))
	if err != nil {
		return nil, err
	}
	st := &state{path: path}
	if err := json.Unmarshal(b, st); err != nil {
		return nil, err
	}
	switch {
	case st.Bytes != r.Bytes || st.Identity != r.identity():
		return nil, errChanged
	case st.Identity == "" && st.URL != Redact(r.URL):
		return nil, errors.New("nothing tells that both addresses have the same file")
	case st.Chunk <= 0 || int64(len(st.Done)) != (st.Bytes+st.Chunk-1)/st.Chunk:
		return nil, errors.New("the state is damaged")
	}
	fi, err := os.Stat(partPath(path))
	if err != nil {
		return nil, err
	}
	if fi.Size() != st.Bytes {
		return nil, fmt.Errorf("the part file has %d bytes, not %d", fi.Size(), st.Bytes)
	}
	return st, nil
}

func (s *state) chunk(i int) (begin, end int64) {
	begin = int64(i) * s.Chunk
	return begin, min(begin+s.Chunk, s.Bytes)
}

func (s *state) missing() []int {
	var out []int
	for i, done := range s.Done {
		if !done {
			out = append(out, i)
		}
	}
	return out
}

func (s *state) doneBytes() int64 {
	var n int64
	for i, done := range s.Done {
		if done {
			begin, end := s.chunk(i)
			n += end - begin
		}
	}
	return n
}

// finish records range i. A crash of the machine may lose data that the state
// counts as there; the digest of the whole finds that out.
func (s *state) finish(i int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Done[i] = true
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	temp := statePath(s.path) + ".new"
	if err := os.WriteFile(temp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, statePath(s.path))
}
