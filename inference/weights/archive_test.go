package weights

import (
	"archive/zip"
	"bytes"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// archive writes zip files entry by entry.
type archive struct {
	t testing.TB
	z *zip.Writer
}

func newArchive(t testing.TB, w io.Writer) *archive { return &archive{t, zip.NewWriter(w)} }

func (a *archive) store(name string, data []byte) {
	a.t.Helper()
	n := uint64(len(data))
	w, err := a.z.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Store, CRC32: crc32.ChecksumIEEE(data), CompressedSize64: n, UncompressedSize64: n})
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		a.t.Fatal(err)
	}
}

func (a *archive) close() {
	a.t.Helper()
	if err := a.z.Close(); err != nil {
		a.t.Fatal(err)
	}
}

func emptyArchive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := newArchive(t, &b)
	w.store("something/else", []byte("x"))
	w.close()
	return b.Bytes()
}

func deflatedArchive(t testing.TB, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pickleOf(t testing.TB, path string) []byte {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		if filepath.Base(f.Name) == "data.pkl" {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatalf("no pickle in %s", path)
	return nil
}

var zeros = make([]byte, 1<<20)

// holes is a file whose zero blocks are not written.
type holes struct{ f *os.File }

func (h holes) Write(b []byte) (int, error) {
	if len(b) > len(zeros) || !bytes.Equal(b, zeros[:len(b)]) {
		return h.f.Write(b)
	}
	_, err := h.f.Seek(int64(len(b)), io.SeekCurrent)
	return len(b), err
}

// An archive of more than 4 GiB, with one storage as large and another one
// behind it, needs zip64 records for sizes and places. The file is sparse.
func TestZip64(t *testing.T) {
	const elements = 1<<30 + 1<<20 // float32: 4 GiB and 4 MiB
	path := filepath.Join(t.TempDir(), "large.pt")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := newArchive(t, holes{f})
	storage := func(key string, n string) string {
		return "(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00" + key + "X\x03\x00\x00\x00cpu" + n + "tQ"
	}
	const rebuild, end = "ctorch._utils\n_rebuild_tensor_v2\n(", "\x89ccollections\nOrderedDict\n)RtRs"
	a.store("m/data.pkl", []byte("\x80\x02}"+
		"X\x03\x00\x00\x00big"+rebuild+storage("0", "J\x00\x00\x10\x40")+"J\xfe\xff\x0f\x40K\x02\x85K\x01\x85"+end+
		"X\x05\x00\x00\x00after"+rebuild+storage("1", "K\x02")+"K\x00K\x02\x85K\x01\x85"+end+"."))
	w, err := a.z.CreateRaw(&zip.FileHeader{Name: "m/data/0", Method: zip.Store, CompressedSize64: 4 * elements, UncompressedSize64: 4 * elements})
	if err != nil {
		t.Fatal(err)
	}
	for left := 4*elements - 8; left > 0; {
		n := min(left, len(zeros))
		if _, err := w.Write(zeros[:n]); err != nil {
			t.Fatal(err)
		}
		left -= n
	}
	if _, err := w.Write(EncodeF32([]float32{3, 4})); err != nil {
		t.Fatal(err)
	}
	a.store("m/data/1", EncodeF32([]float32{5, 6}))
	a.close()

	src, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for name, want := range map[string][]float32{"big": {3, 4}, "after": {5, 6}} {
		if got, err := src.Float32(name, nil); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	st, err := f.Stat()
	if err != nil || st.Size() < 4*elements {
		t.Errorf("the file has %d bytes, %v", st.Size(), err)
	}
}
