//go:build !amd64

package field

var (
	gather    = gatherPortable
	scatter   = scatterPortable
	occlusion = occlusionPortable
	laplacian = laplacianPortable
	merge     = mergePortable
	update    = updatePortable
)
