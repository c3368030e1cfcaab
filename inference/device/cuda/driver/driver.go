//go:build cuda

// Every function but [Status] needs a current context on the calling thread.

package driver

/*
#include <stdlib.h>
#include <string.h>
#include <cuda.h>

extern int dream_cuda_status;
extern void *dream_cuda_library;

static int dream_status(void) { return dream_cuda_status; }
static int dream_library(void) { return dream_cuda_library != NULL; }

static CUresult dream_launch(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned threads, unsigned shared,
                             CUstream stream, int overlap, const void *params, size_t size) {
  // Kernels whose block holds tensor maps round its size up to 64 bytes, so the copy has room behind it.
  unsigned char block[1024] __attribute__((aligned(64))) = {0};
  if (size > sizeof block) return CUDA_ERROR_INVALID_VALUE;
  memcpy(block, params, size);
  void *args[1] = {block};
  CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION};
  attribute.value.programmaticStreamSerializationAllowed = 1;
  CUlaunchConfig config = {.gridDimX = gx, .gridDimY = gy, .gridDimZ = gz, .blockDimX = threads, .blockDimY = 1, .blockDimZ = 1,
                           .sharedMemBytes = shared, .hStream = stream, .attrs = &attribute, .numAttrs = overlap ? 1 : 0};
  return cuLaunchKernelEx(&config, f, args, NULL);
}

static CUresult dream_capture(CUstream stream) { return cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL); }

static CUresult dream_finish(CUstream stream, CUgraphExec *out) {
  CUgraph graph;
  CUresult r = cuStreamEndCapture(stream, &graph);
  if (r != CUDA_SUCCESS) return r;
  r = cuGraphInstantiateWithFlags(out, graph, 0);
  cuGraphDestroy(graph);
  return r;
}

static CUresult dream_tensor_map(void *out, CUdeviceptr base, int rank, const unsigned long long *dims,
                                 const unsigned long long *strides, const unsigned *box, unsigned every) {
  CUtensorMap map __attribute__((aligned(64)));
  unsigned steps[5] = {1, every, every, 1, 1}, span[5];
  for (int i = 0; i < rank; i++) span[i] = box[i] * steps[i];
  CUresult r = cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, rank, (void *)base,
      (const cuuint64_t *)dims, (const cuuint64_t *)strides, span, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  memcpy(out, &map, sizeof map);
  return r;
}

static CUresult dream_shared(CUfunction f, int bytes) {
  return cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes);
}
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// Error is a result code of the driver.
type Error int

func (e Error) Error() string {
	var s *C.char
	if C.cuGetErrorString(C.CUresult(e), &s) == C.CUDA_SUCCESS && s != nil {
		return fmt.Sprintf("%s (CUDA error %d)", C.GoString(s), int(e))
	}
	return fmt.Sprintf("CUDA error %d", int(e))
}

func check(doing string, r C.CUresult) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, Error(r))
}

// Status is the result of cuInit at the start of the process, and whether the
// driver's library was found at all.
func Status() (code Error, found bool) {
	return Error(C.dream_status()), C.dream_library() != 0
}

// Module is loaded device code.
type Module struct{ m C.CUmodule }

// Load takes a cubin or PTX image.
func Load(image []byte) (Module, error) {
	p := C.CBytes(append(image[:len(image):len(image)], 0)) // PTX must end in a zero
	defer C.free(p)
	var m Module
	err := check("load device code", C.cuModuleLoadDataEx(&m.m, p, 0, nil, nil))
	return m, err
}

// Function is a kernel.
type Function struct{ f C.CUfunction }

// Function finds a kernel and allows it so many bytes of dynamic shared memory.
func (m Module) Function(name string, shared int) (Function, error) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	var f Function
	if err := check("find kernel "+name, C.cuModuleGetFunction(&f.f, m.m, s)); err != nil {
		return f, err
	}
	if shared > 48<<10 {
		return f, check("give shared memory to kernel "+name, C.dream_shared(f.f, C.int(shared)))
	}
	return f, nil
}

// Stream is a CUstream.
type Stream unsafe.Pointer

// Launch queues a kernel whose only parameter is the block of size bytes at
// params. With overlap it may start while the one before it drains; it must then
// wait for that one itself (griddepcontrol.wait), and so must every kernel.
func (f Function) Launch(grid [3]int, threads, shared int, s Stream, overlap bool, params unsafe.Pointer, size uintptr) error {
	o := C.int(0)
	if overlap {
		o = 1
	}
	r := C.dream_launch(f.f, C.uint(grid[0]), C.uint(grid[1]), C.uint(grid[2]), C.uint(threads), C.uint(shared),
		C.CUstream(s), o, params, C.size_t(size))
	return check("launch a kernel", r)
}

// HostMemory reserves page-locked memory, which copies run from without a detour.
// It belongs to the context and ends with it.
func HostMemory(bytes int) (unsafe.Pointer, error) {
	var p unsafe.Pointer
	err := check("reserve page-locked memory", C.cuMemAllocHost(&p, C.size_t(bytes)))
	return p, err
}

// Graph is an instantiated graph.
type Graph struct{ g C.CUgraphExec }

// Capture starts recording what this thread queues on s.
func Capture(s Stream) error { return check("begin a graph", C.dream_capture(C.CUstream(s))) }

// Finish ends the recording and makes it executable.
func Finish(s Stream) (Graph, error) {
	var g Graph
	err := check("make a graph", C.dream_finish(C.CUstream(s), &g.g))
	return g, err
}

// Launch queues the whole graph.
func (g Graph) Launch(s Stream) error {
	return check("launch a graph", C.cuGraphLaunch(g.g, C.CUstream(s)))
}

// Destroy frees the graph.
func (g Graph) Destroy() error { return check("free a graph", C.cuGraphExecDestroy(g.g)) }

// TensorMap describes boxes of an fp16 tensor for the tensor memory accelerator.
type TensorMap [16]uint64

// NewTensorMap takes the innermost dimension first: dims in elements, strides
// of the outer dimensions in bytes (one fewer than dims), box in elements.
// Boxes land in the 128-byte swizzle; what lies outside the tensor reads as zero.
// With every = 2 the second and the third dimension are read by steps of two.
func NewTensorMap(base uintptr, dims, strides []uint64, box []uint32, every int) (TensorMap, error) {
	var m TensorMap
	r := C.dream_tensor_map(unsafe.Pointer(&m), C.CUdeviceptr(base), C.int(len(dims)),
		(*C.ulonglong)(unsafe.Pointer(&dims[0])), (*C.ulonglong)(unsafe.Pointer(&strides[0])), (*C.uint)(unsafe.Pointer(&box[0])), C.uint(every))
	if err := check("describe a tensor", r); err != nil {
		return m, fmt.Errorf("%w (dims %v, strides %v, box %v)", err, dims, strides, box)
	}
	return m, nil
}
