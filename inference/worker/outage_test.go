package worker_test

import (
	"testing"
	"time"

	"dreamcad/queue"
	"dreamcad/storage"
	"dreamcad/storage/s3"
	"dreamcad/storage/storagetest"
)

// Row 13: a real S3 server that fails in every way while a finished result is being
// published. The job is not computed again and ends with one whole result.
func TestS3FailsWhilePublishing(t *testing.T) {
	g := storagetest.StartGateway(t)
	p := storagetest.StartProxy(t, g.Endpoint)
	path := true
	cfg := s3.Config{Bucket: "results", Endpoint: g.Endpoint, AccessKey: g.AccessKey, SecretKey: g.SecretKey, PathStyle: &path, Create: true}
	direct, err := s3.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	if _, err := direct.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg.Endpoint, cfg.Retries, cfg.Answer = p.Endpoint, 1, 2*time.Second
	faulty, err := s3.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer faulty.Close()
	r := newRig(t)
	r.store = &flaky{Store: faulty}
	var fault storagetest.Fault
	r.run(func(point string) {
		if point == "kept" {
			p.Fail(fault, -1, nil)
		}
	})
	r.store.Store = faulty
	for _, fault = range []storagetest.Fault{storagetest.Error500, storagetest.Error503, storagetest.Error403, storagetest.Skewed403,
		storagetest.Reset, storagetest.FalseOK, storagetest.LostReply, storagetest.CutBody} {
		j := r.submit(queue.Mesh, queue.Interactive, "a mug, "+string(fault))
		r.until("the server has failed", func() bool { return p.Failed() >= 3 })
		if fault != storagetest.LostReply && fault != storagetest.CutBody { // those writes take effect
			for _, k := range storagetest.Keys(t, direct, storage.JobPrefix(j.ID)) {
				if k == storage.ResultKey(j.ID) {
					t.Errorf("%s: a manifest shows", fault)
				}
			}
		}
		p.Fail("", 0, nil)
		r.published(r.wait(j.ID, queue.Done))
		if n, want := r.dev.ledger.count(j.ID), r.dev.total(j.Request); n != want {
			t.Errorf("%s: %d steps were done, %d are needed", fault, n, want)
		}
	}
}
