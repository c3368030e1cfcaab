package device

// Op is one operation of a program: one of the structs below. Out may not
// overlap an input unless a comment allows it.
type Op interface {
	// Operands lists what it reads and what it writes. Absent tensors may be among them.
	Operands() (reads, writes []Tensor)
	// Params lists its weights; nil ones may be among them.
	Params() []*Param
}

// Activation is applied to the result of a Linear.
type Activation int

// Activations. GELU is the exact one, x·(1+erf(x/√2))/2.
const (
	None Activation = iota
	SiLU
	GELU
	// GEGLU halves the output: weight rows 0..O/2 give the value, the others
	// the gate; out = value · GELU(gate).
	GEGLU
)

// Linear computes Out = act(In · Weightᵀ + Bias) + Residual over rows.
//
//	In (Rows, K), Weight (O, K), Bias (O) or nil, Residual and Out (Rows, O), or (Rows, O/2) for GEGLU.
//
// Residual may be absent and may be the same window as Out. 1×1 convolutions are Linear.
type Linear struct {
	In, Out, Residual Tensor
	Weight, Bias      *Param
	Act               Activation
}

// Conv is a convolution with a square kernel over zero-padded images.
//
//	In (N, H, W, K), Weight (O, K, kh, kw), Bias (O) or nil, Residual and Out (N, H', W', O)
//	H' = (up·H + Top + Bottom - kh)/Stride + 1, up = 2 with Upsample and 1 without; W' likewise.
//
// Upsample doubles the image first (nearest neighbour).
// Residual may be absent and may be the same window as Out.
type Conv struct {
	In, Out, Residual        Tensor
	Weight, Bias             *Param
	Stride                   int
	Top, Left, Bottom, Right int
	Upsample                 bool
}

// GroupNorm normalises over the pixels and the channels of a group.
//
//	In, Out (N, H, W, C), Gamma, Beta (C), Add absent or (N, 1, 1, C)
//	x = In + Add;  Out = (x - mean)/√(var + Eps) · Gamma + Beta, then SiLU if Silu.
//
// Add carries the time and camera embedding of a residual block. Mean and
// variance (divided by the count) belong to one image and group; fp32 always.
type GroupNorm struct {
	In, Out, Add Tensor
	Gamma, Beta  *Param
	Groups       int
	Eps          float32
	Silu         bool
}

// LayerNorm normalises each row: In, Out (Rows, C), Gamma, Beta (C).
type LayerNorm struct {
	In, Out     Tensor
	Gamma, Beta *Param
	Eps         float32
}

// Attention is softmax(Scale · Q Kᵀ) V for each sequence and head.
//
//	Q, Out (N, 1, Lq, Heads·D), K, V (N', 1, Lk, Heads·D) with N a multiple of N'
//
// Query sequence n reads keys n·N'/N. Head h owns channels h·D .. (h+1)·D, so
// that heads need no transposition. With Causal a query sees keys up to its own
// index. The score matrix is never stored whole.
type Attention struct {
	Q, K, V, Out Tensor
	Heads        int
	Scale        float32
	Causal       bool
}

// Elementwise computes Out = act(In), In and Out (Rows, C), Act None (a copy),
// SiLU or GELU. Out may be In.
//
// When In has fewer images than Out, image n of Out is image n mod In.N of In:
// this spreads what both halves of a guided batch share.
type Elementwise struct {
	In, Out Tensor
	Act     Activation
}

// Combine is the weighted sum of up to four tensors with one weight per image:
//
//	Out[n] = Σ_k Coef[n, k] · Terms[k][n],  Coef (N, 1, 1, 4), Terms and Out (N, H, W, C)
//
// It is the guided DDIM update. Absent terms count as zero. Out may be a term.
type Combine struct {
	Terms     [4]Tensor
	Coef, Out Tensor
}

// ConvGrad is the gradient of a Conv (Upsample false) with respect to its input.
//
//	Grad (N, H', W', O), Weight (O, K, kh, kw), Out (N, H, W, K), Residual added when present
type ConvGrad struct {
	Grad, Out, Residual      Tensor
	Weight                   *Param
	Stride                   int
	Top, Left, Bottom, Right int
}

// LinearGrad is the gradient of a plain Linear with respect to its input:
// Out = Grad · Weight + Residual; Grad (Rows, O), Out and Residual (Rows, K).
type LinearGrad struct {
	Grad, Out, Residual Tensor
	Weight              *Param
}

// GroupNormGrad is the gradient of a GroupNorm (without Add) with respect to
// its input: In is the forward input, Grad the gradient of the output,
// Residual is added to Out when present. All (N, H, W, C).
type GroupNormGrad struct {
	In, Grad, Out, Residual Tensor
	Gamma, Beta             *Param
	Groups                  int
	Eps                     float32
	Silu                    bool
}

// AttentionGrad is the gradient of an Attention without mask, N = N', Lq = Lk:
// shapes as there; GradQ, GradK, GradV are written.
type AttentionGrad struct {
	Q, K, V, Grad       Tensor
	GradQ, GradK, GradV Tensor
	Heads               int
	Scale               float32
}

// Operands implements Op.
func (o *Linear) Operands() (r, w []Tensor) { return []Tensor{o.In, o.Residual}, []Tensor{o.Out} }

// Operands implements Op.
func (o *Conv) Operands() (r, w []Tensor) { return []Tensor{o.In, o.Residual}, []Tensor{o.Out} }

// Operands implements Op.
func (o *GroupNorm) Operands() (r, w []Tensor) { return []Tensor{o.In, o.Add}, []Tensor{o.Out} }

// Operands implements Op.
func (o *LayerNorm) Operands() (r, w []Tensor) { return []Tensor{o.In}, []Tensor{o.Out} }

// Operands implements Op.
func (o *Attention) Operands() (r, w []Tensor) { return []Tensor{o.Q, o.K, o.V}, []Tensor{o.Out} }

// Operands implements Op.
func (o *Elementwise) Operands() (r, w []Tensor) { return []Tensor{o.In}, []Tensor{o.Out} }

// Operands implements Op.
func (o *Combine) Operands() (r, w []Tensor) {
	return append([]Tensor{o.Coef}, o.Terms[:]...), []Tensor{o.Out}
}

// Operands implements Op.
func (o *ConvGrad) Operands() (r, w []Tensor) { return []Tensor{o.Grad, o.Residual}, []Tensor{o.Out} }

// Operands implements Op.
func (o *LinearGrad) Operands() (r, w []Tensor) {
	return []Tensor{o.Grad, o.Residual}, []Tensor{o.Out}
}

// Operands implements Op.
func (o *GroupNormGrad) Operands() (r, w []Tensor) {
	return []Tensor{o.In, o.Grad, o.Residual}, []Tensor{o.Out}
}

// Operands implements Op.
func (o *AttentionGrad) Operands() (r, w []Tensor) {
	return []Tensor{o.Q, o.K, o.V, o.Grad}, []Tensor{o.GradQ, o.GradK, o.GradV}
}

// Params implements Op.
func (o *Linear) Params() []*Param { return []*Param{o.Weight, o.Bias} }

// Params implements Op.
func (o *Conv) Params() []*Param { return []*Param{o.Weight, o.Bias} }

// Params implements Op.
func (o *GroupNorm) Params() []*Param { return []*Param{o.Gamma, o.Beta} }

// Params implements Op.
func (o *LayerNorm) Params() []*Param { return []*Param{o.Gamma, o.Beta} }

// Params implements Op.
func (o *Attention) Params() []*Param { return nil }

// Params implements Op.
func (o *Elementwise) Params() []*Param { return nil }

// Params implements Op.
func (o *Combine) Params() []*Param { return nil }

// Params implements Op.
func (o *ConvGrad) Params() []*Param { return []*Param{o.Weight} }

// Params implements Op.
func (o *LinearGrad) Params() []*Param { return []*Param{o.Weight} }

// Params implements Op.
func (o *GroupNormGrad) Params() []*Param { return []*Param{o.Gamma, o.Beta} }

// Params implements Op.
func (o *AttentionGrad) Params() []*Param { return nil }
