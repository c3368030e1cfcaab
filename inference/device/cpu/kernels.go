package cpu

// tile is one call of the matrix kernel: mr rows by nr columns of
//
//	C = bias + Σ over taps t and channels k of A[row + taps[t]][k] · B[t, k] (+ residual)
//
// The assembly reads it by offsets: keep the order.
type tile struct {
	rows  [12]*float32 // first element of each row of A, at tap offset 0
	c     *float32
	ldc   int      // bytes between rows of C
	b     *float32 // panel: nr biases, then nr weights for each tap and channel
	taps  *int     // byte offsets added to every row, one a tap
	ntaps int
	k     int // bytes of the channels of one tap
	res   *float32
	ldres int // bytes between rows of the residual
}

// rowArgs are the operands of the kernels that work along rows. The assembly
// reads it by offsets: keep the order.
type rowArgs struct {
	dst      *float32
	dstPitch int // bytes
	src      *float32
	srcPitch int // bytes
	rows     int
	cols     int
	a, b     *float32
	eps, inv float32
	aPitch   int // bytes; what follows is for the kernels that name it
	bPitch   int
	cPitch   int
	res      *float32 // nil for none
	resRow   int
	resPixel int
	resPitch int
}

// kernels is one set of code paths.
type kernels struct {
	name   string
	mr, nr int // rows and columns of a tile
	lanes  int // columns must be a multiple of it in softmax
	tile   func(*tile)

	sums, layerNorm, softmax, affine, affineSilu, silu, gelu, exp, geglu, addTo func(*rowArgs)

	// winogradIn and winogradOut are nil where convolutions are done directly.
	winogradIn, winogradOut func(*rowArgs)
}
