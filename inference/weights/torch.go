package weights

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Checkpoint is an open PyTorch checkpoint: a zip archive of stored entries
// <root>/data.pkl and <root>/data/<key>, as torch.save has written it since
// version 1.6. It is a Source. Only state dicts are read: a dictionary of
// tensors, or one under the key "state_dict".
type Checkpoint struct {
	name    string
	file    []byte
	keys    []string
	tensors map[string]view

	once  sync.Once
	unmap func() error
}

// view is a tensor within the file.
type view struct {
	Info
	storage []byte  // all of the storage
	offset  int64   // in elements
	stride  []int64 // in elements
}

// maxPickle bounds data.pkl; the 1,244 tensors of MVDream take 140 kB.
const maxPickle = 64 << 20

var errLegacy = errors.New("the file is in PyTorch's format from before version 1.6; load it in PyTorch and torch.save it again")

// ReadCheckpoint reads a checkpoint that is in memory, without copying it;
// name is for errors.
func ReadCheckpoint(name string, file []byte) (*Checkpoint, error) {
	c := &Checkpoint{name: name, file: file, tensors: map[string]view{}}
	if err := c.parse(); err != nil {
		return nil, fmt.Errorf("read weights %q: %w", name, err)
	}
	return c, nil
}

// isZip and isLegacy look at the first bytes.
func isZip(b []byte) bool { return bytes.HasPrefix(b, []byte("PK\x03\x04")) }

func isLegacy(b []byte) bool {
	// A pickled magic number of ten bytes, protocol 2 (torch/serialization.py).
	return bytes.HasPrefix(b, []byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"))
}

func (c *Checkpoint) parse() error {
	switch {
	case isLegacy(c.file):
		return errLegacy
	case !isZip(c.file):
		return errors.New("not a PyTorch checkpoint, or its beginning is damaged")
	}
	z, err := zip.NewReader(bytes.NewReader(c.file), int64(len(c.file)))
	if err != nil {
		return fmt.Errorf("the file is truncated or damaged: %w", err)
	}
	entries, root, err := archiveEntries(z)
	if err != nil {
		return err
	}
	if err := c.checkForm(entries, root); err != nil {
		return err
	}
	pickle, err := c.entry(entries[root+"data.pkl"])
	if err != nil {
		return err
	}
	if len(pickle) > maxPickle {
		return fmt.Errorf("its pickle has %d bytes, more than the %d that weights can need", len(pickle), maxPickle)
	}
	top, err := unpickle(pickle)
	if err != nil {
		return err
	}
	dict, err := stateDict(top)
	if err != nil {
		return err
	}
	return c.collect(dict, entries, root)
}

// archiveEntries indexes the archive and finds the folder of data.pkl, with
// its slash.
func archiveEntries(z *zip.Reader) (entries map[string]*zip.File, root string, err error) {
	entries = make(map[string]*zip.File, len(z.File))
	for _, f := range z.File {
		if _, twice := entries[f.Name]; twice {
			return nil, "", fmt.Errorf("the archive holds %q twice", f.Name)
		}
		entries[f.Name] = f
		if dir, ok := strings.CutSuffix(f.Name, "/data.pkl"); ok && !strings.Contains(dir, "/") {
			if root != "" {
				return nil, "", errors.New("the archive holds two pickles")
			}
			root = dir + "/"
		}
	}
	if root == "" {
		return nil, "", errors.New("the archive is not a PyTorch checkpoint: it holds no data.pkl")
	}
	return entries, root, nil
}

// checkForm refuses programs and big-endian data.
func (c *Checkpoint) checkForm(entries map[string]*zip.File, root string) error {
	if entries[root+"constants.pkl"] != nil {
		return errors.New("the file is a TorchScript program, not weights")
	}
	if f := entries[root+"byteorder"]; f != nil {
		order, err := c.entry(f)
		if err != nil {
			return err
		}
		if string(bytes.TrimSpace(order)) != "little" {
			return errors.New("the file was written on a big-endian machine, which is not supported")
		}
	}
	return nil
}

// entry is the data of a stored entry, within the file.
func (c *Checkpoint) entry(f *zip.File) ([]byte, error) {
	if f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, fmt.Errorf("%q is compressed, which PyTorch never does", f.Name)
	}
	at, err := f.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("%q: the file is truncated or damaged: %w", f.Name, err)
	}
	size := int64(len(c.file))
	if at < 0 || at > size || f.UncompressedSize64 > uint64(size-at) {
		return nil, fmt.Errorf("the file is truncated: %q has %d bytes from byte %d, the file %d", f.Name, f.UncompressedSize64, at, size)
	}
	end := at + int64(f.UncompressedSize64)
	return c.file[at:end:end], nil
}

// stateDict finds the dictionary of tensors in what was pickled.
func stateDict(top any) (*pyDict, error) {
	d, ok := top.(*pyDict)
	if !ok {
		return nil, errors.New("the checkpoint is not a dictionary of tensors")
	}
	for _, it := range d.items {
		if it.key == "state_dict" {
			if inner, ok := it.value.(*pyDict); ok {
				return inner, nil
			}
		}
	}
	return d, nil
}

// collect checks every tensor against its storage. Values that are no tensors
// (an epoch counter) are passed over.
func (c *Checkpoint) collect(dict *pyDict, entries map[string]*zip.File, root string) error {
	storages := map[string][]byte{}
	for _, it := range dict.items {
		ref, ok := it.value.(*tensorRef)
		if !ok {
			continue
		}
		name, ok := it.key.(string)
		if !ok {
			return errors.New("the key of a tensor is not a string")
		}
		if _, twice := c.tensors[name]; twice {
			return fmt.Errorf("tensor %q occurs twice", name)
		}
		data, ok := storages[ref.storage.key]
		if !ok {
			f := entries[root+"data/"+ref.storage.key]
			if f == nil {
				return fmt.Errorf("tensor %q: the archive holds no storage %q", name, ref.storage.key)
			}
			var err error
			if data, err = c.entry(f); err != nil {
				return fmt.Errorf("tensor %q: %w", name, err)
			}
			storages[ref.storage.key] = data
		}
		v, err := ref.view(data)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		c.tensors[name] = v
		c.keys = append(c.keys, name)
	}
	if len(c.keys) == 0 {
		return errors.New("the checkpoint holds no tensors")
	}
	sort.Strings(c.keys)
	return nil
}

// view checks that all elements of the tensor lie within its storage, and that
// reading it cannot need more memory than the storage has.
func (r *tensorRef) view(data []byte) (view, error) {
	n := r.storage.elements
	if width := int64(r.storage.dtype.Size()); n > int64(len(data))/width || n*width != int64(len(data)) {
		return view{}, fmt.Errorf("storage %q has %d bytes, not %d elements of %v", r.storage.key, len(data), n, r.storage.dtype)
	}
	if _, err := checkShape(r.shape, r.storage.dtype); err != nil {
		return view{}, err
	}
	v := view{Info{r.storage.dtype, r.shape}, data, r.offset, r.stride}
	outside := fmt.Errorf("shape %v with strides %v from element %d does not fit its storage of %d elements", r.shape, r.stride, r.offset, n)
	if r.offset < 0 || r.offset > n {
		return view{}, outside
	}
	if v.Elements() == 0 {
		return v, nil
	}
	last := r.offset // the highest element; every term is at most n, so nothing overflows
	for i, s := range r.stride {
		d := int64(r.shape[i]) - 1
		if d == 0 {
			continue
		}
		if s < 0 || s > n/d {
			return view{}, outside
		}
		if last += d * s; last > n {
			return view{}, outside
		}
	}
	if last >= n {
		return view{}, outside
	}
	if int64(v.Elements()) > n {
		return view{}, fmt.Errorf("shape %v with strides %v repeats elements, which weights never do", r.shape, r.stride)
	}
	return v, nil
}

// contiguous says whether the elements lie in the file in row-major order.
func (v view) contiguous() bool {
	want := int64(1)
	for i := len(v.Shape) - 1; i >= 0; i-- {
		if v.Shape[i] != 1 && v.stride[i] != want {
			return false
		}
		want *= int64(v.Shape[i])
	}
	return true
}

// Keys implements Source.
func (c *Checkpoint) Keys() []string { return slices.Clone(c.keys) }

// Lookup implements Source.
func (c *Checkpoint) Lookup(name string) (Info, bool) {
	v, ok := c.tensors[name]
	return v.Info, ok
}

// Raw implements Source: the mapped file itself for contiguous tensors, a copy
// for others (transposed ones, slices).
func (c *Checkpoint) Raw(name string) ([]byte, error) {
	v, ok := c.tensors[name]
	if !ok {
		return nil, fmt.Errorf("read weights %q: tensor %q is missing", c.name, name)
	}
	if v.Elements() == 0 {
		return nil, nil
	}
	width := int64(v.DType.Size())
	if v.contiguous() {
		begin := v.offset * width
		end := begin + v.Bytes()
		return v.storage[begin:end:end], nil
	}
	return v.gather(make([]byte, 0, v.Bytes())), nil
}

// gather appends the elements in row-major order.
func (v view) gather(dst []byte) []byte {
	width := int64(v.DType.Size())
	index := make([]int, len(v.Shape))
	at := v.offset
	for {
		dst = append(dst, v.storage[at*width:(at+1)*width]...)
		i := len(index) - 1
		for ; i >= 0; i-- {
			index[i]++
			at += v.stride[i]
			if index[i] < v.Shape[i] {
				break
			}
			at -= v.stride[i] * int64(v.Shape[i])
			index[i] = 0
		}
		if i < 0 {
			return dst
		}
	}
}

// Float32 implements Source.
func (c *Checkpoint) Float32(name string, dst []float32) ([]float32, error) {
	return float32s(c, c.name, name, dst)
}

// Close implements Source.
func (c *Checkpoint) Close() error {
	var err error
	c.once.Do(func() {
		c.tensors, c.file = nil, nil
		if c.unmap != nil {
			err = c.unmap()
		}
	})
	return err
}

// Open maps a file of either format, which it tells by its first bytes.
func Open(path string) (Source, error) { return OpenAs(path, path) }

// OpenAs is Open; name is for errors.
func OpenAs(path, name string) (Source, error) {
	b, unmap, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("open weights: %w", err)
	}
	if isZip(b) || isLegacy(b) {
		c, err := ReadCheckpoint(name, b)
		if err != nil {
			return nil, errors.Join(err, unmap())
		}
		c.unmap = unmap
		return c, nil
	}
	s, err := ReadSafetensors(name, b)
	if errors.Is(err, errNotSafetensors) {
		err = fmt.Errorf("read weights %q: neither a PyTorch checkpoint nor a safetensors file, or its beginning is damaged", name)
	}
	if err != nil {
		return nil, errors.Join(err, unmap())
	}
	s.unmap = unmap
	return s, nil
}
