package s3_test

import (
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"dreamcad/storage/storagetest"
)

// BenchmarkUpload stores a file of 200 MB through Store.Put and through the plain
// client in turn; ratio is the median of Put's time over that of the client, peak-MB
// the most memory that the Go runtime held from the system during Put.
func BenchmarkUpload(b *testing.B) {
	g := storagetest.StartGateway(b)
	s := open(b, config(g))
	if _, err := s.Check(b.Context()); err != nil {
		b.Fatal(err)
	}
	u, err := url.Parse(g.Endpoint)
	if err != nil {
		b.Fatal(err)
	}
	plain, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(g.AccessKey, g.SecretKey, ""), BucketLookup: minio.BucketLookupPath, Region: "us-east-1"})
	if err != nil {
		b.Fatal(err)
	}
	const size = 200_000_000
	path := filepath.Join(b.TempDir(), "big.glb")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	put := func() {
		if _, err := f.Seek(0, 0); err != nil {
			b.Fatal(err)
		}
		if err := s.Put(b.Context(), "jobs/a/l/big.glb", f, size); err != nil {
			b.Fatal(err)
		}
	}
	put() // connections and files are warm
	var ours, theirs []float64
	var peak uint64
	for b.Loop() {
		runtime.GC()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.Sys-m.HeapReleased)
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
		begun := time.Now()
		put()
		ours = append(ours, time.Since(begun).Seconds())
		close(stop)
		wg.Wait()
		begun = time.Now()
		if _, err := plain.FPutObject(b.Context(), "results", "plain.glb", path, minio.PutObjectOptions{}); err != nil {
			b.Fatal(err)
		}
		theirs = append(theirs, time.Since(begun).Seconds())
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	b.SetBytes(size)
	b.ReportMetric(ours[len(ours)/2]/theirs[len(theirs)/2], "ratio")
	b.ReportMetric(ours[len(ours)/2], "put-s")
	b.ReportMetric(theirs[len(theirs)/2], "plain-s")
	b.ReportMetric(float64(peak)/1e6, "peak-MB")
}
