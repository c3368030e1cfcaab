package worker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"dreamcad/queue"
)

// ErrCheckpoint says that a checkpoint is damaged or was made by something else.
var ErrCheckpoint = errors.New("the checkpoint cannot be used")

// A checkpoint file is what Work.Save wrote, a footer in JSON, the footer's length
// (4 bytes, little endian) and a mark. The footer comes last because it holds the
// payload's hash and the payload may be too large to keep in memory.
const ckptMark = "dreamCK1"

// maxFooter bounds the footer in bytes.
const maxFooter = 64 << 10

// keepCheckpoints is how many stay, locally and in storage.
const keepCheckpoints = 2

// footer describes a checkpoint.
type footer struct {
	Job     string             `json:"job"`
	N       int                `json:"n"`
	Model   string             `json:"model"` // digest
	Stage   queue.Stage        `json:"stage"`
	Step    int                `json:"step"`
	Bytes   int64              `json:"bytes"`
	SHA256  string             `json:"sha256"`
	Timings map[string]float64 `json:"timings"` // seconds by stage, of all attempts so far
}

// writeCheckpoint stores a checkpoint as box/ckpt-<n> and drops all but the last two.
func writeCheckpoint(box string, ft footer, save func(io.Writer) error) (string, error) {
	if err := os.MkdirAll(box, 0o700); err != nil {
		return "", fmt.Errorf("saving checkpoint: %w", err)
	}
	path := filepath.Join(box, ckptName(ft.N))
	err := writeFile(path, func(w io.Writer) error {
		h := sha256.New()
		cw := &counting{w: io.MultiWriter(w, h)}
		if err := save(cw); err != nil {
			return err
		}
		ft.Bytes, ft.SHA256 = cw.n, hex.EncodeToString(h.Sum(nil))
		data, err := json.Marshal(ft)
		if err != nil {
			return err
		}
		var buf bytes.Buffer
		buf.Write(data)
		buf.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(data))))
		buf.WriteString(ckptMark)
		_, err = w.Write(buf.Bytes())
		return err
	})
	if err != nil {
		return "", fmt.Errorf("saving checkpoint: %w", err)
	}
	old := checkpoints(box)
	for _, n := range old[min(len(old), keepCheckpoints):] {
		os.Remove(filepath.Join(box, ckptName(n)))
	}
	return path, nil
}

// openCheckpoint checks a file whole and returns it at the start of its payload.
func openCheckpoint(path string) (*os.File, footer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, footer{}, err
	}
	ft, err := checkCheckpoint(f)
	if err != nil {
		f.Close()
		return nil, footer{}, fmt.Errorf("reading checkpoint %q: %w", path, err)
	}
	return f, ft, nil
}

func checkCheckpoint(f *os.File) (footer, error) {
	var ft footer
	fi, err := f.Stat()
	if err != nil {
		return ft, err
	}
	tail := make([]byte, 4+len(ckptMark))
	if fi.Size() < int64(len(tail)) {
		return ft, ErrCheckpoint
	}
	if _, err := f.ReadAt(tail, fi.Size()-int64(len(tail))); err != nil {
		return ft, err
	}
	n := int64(binary.LittleEndian.Uint32(tail))
	start := fi.Size() - int64(len(tail)) - n
	if string(tail[4:]) != ckptMark || n > maxFooter || start < 0 {
		return ft, ErrCheckpoint
	}
	data := make([]byte, n)
	if _, err := f.ReadAt(data, start); err != nil {
		return ft, err
	}
	if err := json.Unmarshal(data, &ft); err != nil || ft.Bytes != start {
		return ft, ErrCheckpoint
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, start)); err != nil {
		return ft, err
	}
	if hex.EncodeToString(h.Sum(nil)) != ft.SHA256 {
		return ft, ErrCheckpoint
	}
	_, err = f.Seek(0, io.SeekStart)
	return ft, err
}

func ckptName(n int) string { return fmt.Sprintf("ckpt-%08d", n) }

// checkpoints lists the numbers of the checkpoints in a box, newest first.
func checkpoints(box string) []int {
	entries, err := os.ReadDir(box)
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if num, ok := strings.CutPrefix(e.Name(), "ckpt-"); ok {
			if n, err := strconv.Atoi(num); err == nil {
				out = append(out, n)
			}
		}
	}
	sort.Sort(sort.Reverse(sort.IntSlice(out)))
	return out
}

type counting struct {
	w io.Writer
	n int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
