package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// A pickle is a program for a small stack machine that may call any function
// it names. This one runs only what PyTorch writes for a state dict: it knows
// the op codes below, it "calls" two constructors by building the value itself,
// and everything else is refused by name.
//
// The format: docs of Python's pickletools; what PyTorch makes of it:
// pytorch/pytorch torch/serialization.py (persistent ids) and torch/_utils.py.

// Values on the stack: nil, bool, int64, string, and the types below.
type (
	// pyTuple is a tuple.
	pyTuple []any
	// pyDict is a dict or an OrderedDict, in the order of insertion. Keys are
	// not compared here: whoever reads a dict decides about repeated keys.
	pyDict struct{ items []pyItem }
	pyItem struct{ key, value any }
	// pyGlobal is a function or class that the machine knows.
	pyGlobal string
	// pyMark separates arguments on the stack.
	pyMark struct{}
)

// storageRef names the raw data of one or more tensors.
type storageRef struct {
	dtype    DType
	key      string // of the archive's entry data/<key>
	elements int64
}

// tensorRef is a view of a storage. Offset and strides are in elements.
type tensorRef struct {
	storage storageRef
	offset  int64
	shape   []int
	stride  []int64
}

const (
	globalOrderedDict = pyGlobal("collections.OrderedDict")
	globalRebuild     = pyGlobal("torch._utils._rebuild_tensor_v2")
)

// storageTypes are the classes that a persistent id may name.
var storageTypes = map[pyGlobal]DType{
	"torch.FloatStorage":    F32,
	"torch.HalfStorage":     F16,
	"torch.BFloat16Storage": BF16,
	"torch.DoubleStorage":   F64,
	"torch.LongStorage":     I64,
	"torch.IntStorage":      I32,
	"torch.ShortStorage":    I16,
	"torch.CharStorage":     I8,
	"torch.ByteStorage":     U8,
	"torch.BoolStorage":     Bool,
}

func knownGlobal(g pyGlobal) bool {
	_, storage := storageTypes[g]
	return storage || g == globalOrderedDict || g == globalRebuild
}

// The op codes of state dicts (protocol 2).
const (
	opMark       = '('
	opStop       = '.'
	opBinInt     = 'J'
	opBinInt1    = 'K'
	opBinInt2    = 'M'
	opNone       = 'N'
	opBinPersID  = 'Q'
	opReduce     = 'R'
	opBinUnicode = 'X'
	opBuild      = 'b'
	opGlobal     = 'c'
	opEmptyDict  = '}'
	opBinGet     = 'h'
	opLongBinGet = 'j'
	opBinPut     = 'q'
	opLongBinPut = 'r'
	opSetItem    = 's'
	opTuple      = 't'
	opEmptyTuple = ')'
	opSetItems   = 'u'
	opProto      = 0x80
	opTuple1     = 0x85
	opTuple2     = 0x86
	opTuple3     = 0x87
	opNewTrue    = 0x88
	opNewFalse   = 0x89
	opLong1      = 0x8a
)

var (
	errPickleEnds  = errors.New("the pickle ends too early")
	errPickleStack = errors.New("the pickle is damaged: its stack does not hold what an op code needs")
)

// machine runs one pickle. Its memory is bounded by the length of the pickle:
// every op code pushes at most one value, and no op code copies a container.
type machine struct {
	code  []byte
	at    int
	stack []any
	memo  map[uint32]any
}

// unpickle runs a pickle and returns its value.
func unpickle(code []byte) (any, error) {
	m := &machine{code: code, memo: map[uint32]any{}}
	for {
		start := m.at
		op, err := m.byte()
		if err != nil {
			return nil, err
		}
		if op == opStop {
			if len(m.stack) != 1 {
				return nil, errPickleStack
			}
			return m.stack[0], nil
		}
		if err := m.step(op); err != nil {
			return nil, fmt.Errorf("byte %d of the pickle: %w", start, err)
		}
	}
}

func (m *machine) step(op byte) error {
	switch op {
	case opProto:
		v, err := m.byte()
		if err == nil && v != 2 {
			return fmt.Errorf("pickle protocol %d is not the one that PyTorch uses for weights, 2", v)
		}
		return err
	case opMark:
		m.push(pyMark{})
	case opNone:
		m.push(nil)
	case opNewTrue:
		m.push(true)
	case opNewFalse:
		m.push(false)
	case opEmptyDict:
		m.push(&pyDict{})
	case opEmptyTuple:
		m.push(pyTuple{})
	case opBinInt, opBinInt1, opBinInt2, opLong1:
		return m.integer(op)
	case opBinUnicode:
		return m.text()
	case opGlobal:
		return m.global()
	case opBinPut, opLongBinPut, opBinGet, opLongBinGet:
		return m.remember(op)
	case opTuple, opTuple1, opTuple2, opTuple3:
		return m.tuple(op)
	case opSetItem, opSetItems:
		return m.setItems(op)
	case opBinPersID:
		return m.persistent()
	case opReduce:
		return m.reduce()
	case opBuild:
		return m.build()
	default:
		return fmt.Errorf("op code 0x%02x is not one that weights need, so the file is refused", op)
	}
	return nil
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

func (m *machine) pop() (any, error) {
	if len(m.stack) == 0 {
		return nil, errPickleStack
	}
	v := m.stack[len(m.stack)-1]
	m.stack = m.stack[:len(m.stack)-1]
	return v, nil
}

// popMark takes everything above the topmost mark, and the mark.
func (m *machine) popMark() ([]any, error) {
	for i := len(m.stack) - 1; i >= 0; i-- {
		if _, ok := m.stack[i].(pyMark); ok {
			items := append([]any(nil), m.stack[i+1:]...)
			m.stack = m.stack[:i]
			return items, nil
		}
	}
	return nil, errPickleStack
}

func (m *machine) byte() (byte, error) {
	if m.at >= len(m.code) {
		return 0, errPickleEnds
	}
	b := m.code[m.at]
	m.at++
	return b, nil
}

func (m *machine) bytes(n int) ([]byte, error) {
	if n < 0 || n > len(m.code)-m.at {
		return nil, errPickleEnds
	}
	b := m.code[m.at : m.at+n]
	m.at += n
	return b, nil
}

// line reads up to the next newline, which it drops.
func (m *machine) line() (string, error) {
	const most = 256
	for i := m.at; i < len(m.code) && i < m.at+most; i++ {
		if m.code[i] == '\n' {
			s := string(m.code[m.at:i])
			m.at = i + 1
			return s, nil
		}
	}
	return "", errPickleEnds
}

func (m *machine) integer(op byte) error {
	n := map[byte]int{opBinInt: 4, opBinInt1: 1, opBinInt2: 2}[op]
	if op == opLong1 {
		b, err := m.byte()
		if err != nil {
			return err
		}
		if n = int(b); n > 8 {
			return fmt.Errorf("an integer of %d bytes is larger than any size", n)
		}
	}
	b, err := m.bytes(n)
	if err != nil {
		return err
	}
	var buf [8]byte
	copy(buf[:], b)
	v := int64(binary.LittleEndian.Uint64(buf[:]))
	// BININT and LONG1 are signed, the short forms are not.
	if shift := 64 - 8*n; (op == opBinInt || op == opLong1) && n > 0 {
		v = v << shift >> shift
	}
	m.push(v)
	return nil
}

func (m *machine) text() error {
	head, err := m.bytes(4)
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head)
	if n > math.MaxInt32 {
		return errPickleEnds
	}
	b, err := m.bytes(int(n))
	if err != nil {
		return err
	}
	m.push(string(b))
	return nil
}

func (m *machine) global() error {
	module, err := m.line()
	if err != nil {
		return err
	}
	name, err := m.line()
	if err != nil {
		return err
	}
	g := pyGlobal(module + "." + name)
	if !knownGlobal(g) {
		return fmt.Errorf("it wants to use %q, which weights do not need, so the file is refused", string(g))
	}
	m.push(g)
	return nil
}

func (m *machine) remember(op byte) error {
	width := 1
	if op == opLongBinPut || op == opLongBinGet {
		width = 4
	}
	b, err := m.bytes(width)
	if err != nil {
		return err
	}
	var buf [4]byte
	copy(buf[:], b)
	index := binary.LittleEndian.Uint32(buf[:])
	if op == opBinPut || op == opLongBinPut {
		if len(m.stack) == 0 {
			return errPickleStack
		}
		m.memo[index] = m.stack[len(m.stack)-1]
		return nil
	}
	v, ok := m.memo[index]
	if !ok {
		return fmt.Errorf("the pickle is damaged: it recalls value %d, which it never stored", index)
	}
	m.push(v)
	return nil
}

func (m *machine) tuple(op byte) error {
	if op == opTuple {
		items, err := m.popMark()
		if err != nil {
			return err
		}
		m.push(pyTuple(items))
		return nil
	}
	n := int(op-opTuple1) + 1
	if len(m.stack) < n {
		return errPickleStack
	}
	items := append(pyTuple(nil), m.stack[len(m.stack)-n:]...)
	m.stack = append(m.stack[:len(m.stack)-n], items)
	return nil
}

func (m *machine) setItems(op byte) error {
	var items []any
	if op == opSetItems {
		var err error
		if items, err = m.popMark(); err != nil {
			return err
		}
	} else {
		if len(m.stack) < 2 {
			return errPickleStack
		}
		items = append(items, m.stack[len(m.stack)-2:]...)
		m.stack = m.stack[:len(m.stack)-2]
	}
	if len(m.stack) == 0 || len(items)%2 != 0 {
		return errPickleStack
	}
	d, ok := m.stack[len(m.stack)-1].(*pyDict)
	if !ok {
		return errPickleStack
	}
	for i := 0; i < len(items); i += 2 {
		d.items = append(d.items, pyItem{items[i], items[i+1]})
	}
	return nil
}

// persistent turns ("storage", class, key, device, elements) into a reference.
// The device is where the tensor once lived and does not matter.
func (m *machine) persistent() error {
	v, err := m.pop()
	if err != nil {
		return err
	}
	t, ok := v.(pyTuple)
	if !ok || len(t) != 5 {
		return errors.New("a persistent id is not that of a storage")
	}
	kind, _ := t[0].(string)
	class, _ := t[1].(pyGlobal)
	key, okKey := t[2].(string)
	elements, okN := t[4].(int64)
	dtype, okType := storageTypes[class]
	if kind != "storage" || !okType || !okKey || !okN || elements < 0 {
		return errors.New("a persistent id is not that of a storage")
	}
	m.push(storageRef{dtype, key, elements})
	return nil
}

func (m *machine) reduce() error {
	args, err := m.pop()
	if err != nil {
		return err
	}
	callee, err := m.pop()
	if err != nil {
		return err
	}
	t, ok := args.(pyTuple)
	if !ok {
		return errPickleStack
	}
	switch callee {
	case globalOrderedDict:
		if len(t) != 0 {
			return errors.New("an OrderedDict is built from arguments, which state dicts do not do")
		}
		m.push(&pyDict{})
	case globalRebuild:
		ref, err := rebuild(t)
		if err != nil {
			return err
		}
		m.push(ref)
	default:
		return errors.New("it calls something that weights do not need, so the file is refused")
	}
	return nil
}

// rebuild reads (storage, offset, size, stride, requires_grad, hooks[, metadata]).
func rebuild(t pyTuple) (*tensorRef, error) {
	bad := errors.New("a tensor is described in an unknown way")
	if len(t) != 6 && len(t) != 7 {
		return nil, bad
	}
	storage, ok := t[0].(storageRef)
	offset, okOffset := t[1].(int64)
	size, okSize := t[2].(pyTuple)
	stride, okStride := t[3].(pyTuple)
	if !ok || !okOffset || !okSize || !okStride || len(size) != len(stride) {
		return nil, bad
	}
	ref := &tensorRef{storage: storage, offset: offset, shape: make([]int, len(size)), stride: make([]int64, len(size))}
	for i := range size {
		n, ok := size[i].(int64)
		s, okS := stride[i].(int64)
		if !ok || !okS {
			return nil, bad
		}
		ref.shape[i], ref.stride[i] = int(n), s
	}
	return ref, nil
}

// build takes the attributes of the object below. A state dict has one,
// _metadata, which says nothing about the tensors.
func (m *machine) build() error {
	state, err := m.pop()
	if err != nil {
		return err
	}
	if len(m.stack) == 0 {
		return errPickleStack
	}
	_, okState := state.(*pyDict)
	_, okObject := m.stack[len(m.stack)-1].(*pyDict)
	if !okState || !okObject {
		return errors.New("it sets attributes of something that is not a dictionary, so the file is refused")
	}
	return nil
}
