//go:build !amd64

package field

var (
	march     = marchPortable
	gather    = gatherPortable
	composite = compositePortable
	backward  = backwardPortable
	scatter   = scatterPortable
	occlusion = occlusionPortable
	laplacian = laplacianPortable
	merge     = mergePortable
	update    = updatePortable
)

func prefetch(*ray) {}
