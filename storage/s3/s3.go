// Package s3 keeps objects in a bucket of any S3 server, by minio-go. Uploads have
// explicit part sizes and parallelism; every request is retried a bounded number of
// times and ends with its context. Create needs a server that honours
// "If-None-Match: *" on PUT; Check tells whether this one does.
package s3

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"dreamcad/storage"
)

// Store is a storage.Store in a bucket.
type Store struct {
	cfg    Config
	prefix string // "" or "…/"
	client *minio.Client
	public *minio.Client // signs links
	http   *http.Transport
}

var _ storage.Store = (*Store)(nil)

// Open makes a client. It does not connect: Check or the first operation does.
func Open(cfg Config) (*Store, error) {
	cfg.setDefaults()
	if cfg.Bucket == "" {
		return nil, errors.New("opening S3 storage: no bucket given")
	}
	tr, err := transport(cfg)
	if err != nil {
		return nil, fmt.Errorf("opening S3 storage: %w", err)
	}
	s := &Store{cfg: cfg, http: tr}
	if cfg.Prefix != "" {
		s.prefix = cfg.Prefix + "/"
	}
	if s.client, err = newClient(cfg, cfg.Endpoint, tr); err == nil {
		s.public, err = newClient(cfg, cfg.PublicEndpoint, tr)
	}
	if err != nil {
		return nil, fmt.Errorf("opening S3 storage: %w", err)
	}
	return s, nil
}

// Close ends idle connections.
func (s *Store) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

func newClient(cfg Config, endpoint string, tr http.RoundTripper) (*minio.Client, error) {
	host, secure, err := splitEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	creds := credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.EnvMinio{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
	})
	if cfg.AccessKey != "" {
		creds = credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, cfg.SessionToken)
	}
	lookup := minio.BucketLookupAuto
	if cfg.PathStyle != nil {
		lookup = minio.BucketLookupDNS
		if *cfg.PathStyle {
			lookup = minio.BucketLookupPath
		}
	}
	return minio.New(host, &minio.Options{Creds: creds, Secure: secure, Region: cfg.Region, Transport: tr,
		BucketLookup: lookup, MaxRetries: cfg.Retries})
}

func transport(cfg Config) (*http.Transport, error) {
	tr := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: cfg.Dial, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: cfg.Answer,
		ExpectContinueTimeout: 5 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   16,
		DisableCompression:    true,                                                                           // what is stored compressed must stay so
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: cfg.InsecureTLS}, //nolint:gosec // asked for by name, for trials
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading certificates: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading certificates: no certificate in %q", cfg.CAFile)
		}
		tr.TLSClientConfig.RootCAs = pool
	}
	return tr, nil
}

func (s *Store) options(key string) minio.PutObjectOptions {
	return minio.PutObjectOptions{
		ContentType:        storage.MediaType(key),
		ContentDisposition: storage.Disposition(key),
		PartSize:           uint64(s.cfg.PartSize),
		NumThreads:         uint(s.cfg.Concurrency),
	}
}

// Put implements storage.Store.
func (s *Store) Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error {
	const op = "put"
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	section, err := sectionOf(body, size)
	if err != nil {
		return &storage.Error{Op: op, Key: key, Err: err}
	}
	return s.upload(ctx, op, key, section, size, s.options(key))
}

// upload sends one object. A server over a file system may lose a race with the
// deletion of the last neighbour, and says so with a conflict: then it tries again.
func (s *Store) upload(ctx context.Context, op, key string, body io.ReadSeeker, size int64, opts minio.PutObjectOptions) error {
	// Over plain HTTP the client signs bodies in chunks, and an empty one without a
	// length. Servers that answer before that end of the body has come (versitygw
	// 1.8) take it for the next request of the connection.
	opts.DisableContentSha256 = size == 0
	for try := 1; ; try++ {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return &storage.Error{Op: op, Key: key, Err: err}
		}
		info, err := s.client.PutObject(ctx, s.cfg.Bucket, s.prefix+key, body, size, opts)
		if err == nil && info.ETag == "" {
			err = errNoTag
		}
		if try > s.cfg.Retries || minio.ToErrorResponse(err).Code != "ExistingObjectIsDirectory" {
			return s.fail(ctx, op, key, err)
		}
	}
}

// errNoTag marks an answer that says 200 but is not one of an object: some proxies
// and servers send an error text with that status.
var errNoTag = errors.New("the answer names no ETag")

// sectionOf gives size bytes of body from its offset, readable in any order. A body
// that is too short shows here, before anything is sent.
func sectionOf(body io.ReadSeeker, size int64) (*io.SectionReader, error) {
	off, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	end, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if end-off < size {
		return nil, fmt.Errorf("body of %d bytes does not hold the announced %d", end-off, size)
	}
	ra, ok := body.(io.ReaderAt)
	if !ok {
		ra = &seekReaderAt{rs: body}
	}
	return io.NewSectionReader(ra, off, size), nil
}

// seekReaderAt reads anywhere in what can only seek.
type seekReaderAt struct {
	mu sync.Mutex
	rs io.ReadSeeker
}

func (r *seekReaderAt) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.rs.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r.rs, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// Create implements storage.Store by a conditional PUT in one request; multipart
// uploads cannot be conditional.
func (s *Store) Create(ctx context.Context, key string, data []byte) error {
	const op = "create"
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	opts := s.options(key)
	opts.DisableMultipart = true
	opts.SetMatchETagExcept("*")
	return s.upload(ctx, op, key, bytes.NewReader(data), int64(len(data)), opts)
}

// Get implements storage.Store.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	const op = "get"
	if err := storage.CheckKey(key); err != nil {
		return nil, err
	}
	if n == 0 {
		_, err := s.Stat(ctx, key)
		return io.NopCloser(strings.NewReader("")), err
	}
	var opts minio.GetObjectOptions
	var err error
	switch {
	case n > 0:
		err = opts.SetRange(off, off+n-1)
	case off > 0:
		err = opts.SetRange(off, 0)
	}
	if err != nil {
		return nil, &storage.Error{Op: op, Key: key, Err: err}
	}
	body, info, _, err := minio.Core{Client: s.client}.GetObject(ctx, s.cfg.Bucket, s.prefix+key, opts)
	if err == nil && info.ETag == "" {
		body.Close()
		err = errNoTag
	}
	if resp := minio.ToErrorResponse(err); err != nil && (resp.Code == minio.InvalidRange || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, s.fail(ctx, op, key, err)
	}
	return &reader{s: s, ctx: ctx, key: key, body: body}, nil
}

// reader gives errors of a body their kind.
type reader struct {
	s    *Store
	ctx  context.Context
	key  string
	body io.ReadCloser
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.s.fail(r.ctx, "get", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.body.Close() }

// Stat implements storage.Store.
func (s *Store) Stat(ctx context.Context, key string) (storage.Info, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Info{}, err
	}
	o, err := s.client.StatObject(ctx, s.cfg.Bucket, s.prefix+key, minio.StatObjectOptions{})
	if err != nil {
		return storage.Info{}, s.fail(ctx, "stat", key, err)
	}
	return storage.Info{Key: key, Size: o.Size, Modified: o.LastModified, ETag: o.ETag}, nil
}

// List implements storage.Store.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[storage.Info, error] {
	return func(yield func(storage.Info, error) bool) {
		if err := storage.CheckPrefix(prefix); err != nil {
			yield(storage.Info{}, err)
			return
		}
		if err := ctx.Err(); err != nil {
			yield(storage.Info{}, s.fail(ctx, "list", prefix, err))
			return
		}
		for o := range s.client.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true}) {
			if o.Err != nil {
				yield(storage.Info{}, s.fail(ctx, "list", prefix, o.Err))
				return
			}
			if strings.HasSuffix(o.Key, "/") { // a folder that someone made
				continue
			}
			info := storage.Info{Key: strings.TrimPrefix(o.Key, s.prefix), Size: o.Size, Modified: o.LastModified, ETag: o.ETag}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Delete implements storage.Store.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := storage.CheckKey(key); err != nil {
			return err
		}
	}
	switch len(keys) {
	case 0:
		return nil
	case 1:
		err := s.fail(ctx, "delete", keys[0], s.client.RemoveObject(ctx, s.cfg.Bucket, s.prefix+keys[0], minio.RemoveObjectOptions{}))
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		return err
	}
	results, err := s.client.RemoveObjectsWithIter(ctx, s.cfg.Bucket, func(yield func(minio.ObjectInfo) bool) {
		for _, key := range keys {
			if !yield(minio.ObjectInfo{Key: s.prefix + key}) {
				return
			}
		}
	}, minio.RemoveObjectsOptions{})
	if err != nil {
		return s.fail(ctx, "delete", keys[0], err)
	}
	var first error
	for r := range results {
		err := s.fail(ctx, "delete", strings.TrimPrefix(r.ObjectName, s.prefix), r.Err)
		if first == nil && err != nil && !errors.Is(err, storage.ErrNotFound) {
			first = err
		}
	}
	return first
}

// Link implements storage.Store: a presigned URL of the public endpoint.
func (s *Store) Link(ctx context.Context, key string, life time.Duration) (string, error) {
	if err := storage.CheckKey(key); err != nil {
		return "", err
	}
	if life > storage.MaxLinkLife || life < time.Second {
		return "", &storage.Error{Op: "link", Key: key, Err: fmt.Errorf("life of %v: 1 s to 7 days are possible", life)}
	}
	u, err := s.public.PresignedGetObject(ctx, s.cfg.Bucket, s.prefix+key, life, nil)
	if err != nil {
		return "", s.fail(ctx, "link", key, err)
	}
	return u.String(), nil
}

// Uploads implements storage.Store.
func (s *Store) Uploads(ctx context.Context, before time.Time) iter.Seq2[storage.Upload, error] {
	return func(yield func(storage.Upload, error) bool) {
		ctx, cancel := context.WithCancel(ctx) // ends the client's goroutine when the caller stops early
		defer cancel()
		for u := range s.client.ListIncompleteUploads(ctx, s.cfg.Bucket, s.prefix, true) {
			if u.Err != nil {
				yield(storage.Upload{}, s.fail(ctx, "list uploads", "", u.Err))
				return
			}
			if u.Initiated.Before(before) && !yield(storage.Upload{Key: strings.TrimPrefix(u.Key, s.prefix), ID: u.UploadID, Started: u.Initiated}, nil) {
				return
			}
		}
	}
}

// Abort implements storage.Store.
func (s *Store) Abort(ctx context.Context, u storage.Upload) error {
	err := minio.Core{Client: s.client}.AbortMultipartUpload(ctx, s.cfg.Bucket, s.prefix+u.Key, u.ID)
	if err = s.fail(ctx, "abort", u.Key, err); errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}

// Check implements storage.Store. It makes the bucket first if that is wished.
func (s *Store) Check(ctx context.Context) (storage.Features, error) {
	host, _, _ := splitEndpoint(s.cfg.Endpoint) // was checked by Open
	feat := storage.Features{Backend: fmt.Sprintf("S3 bucket %s at %s", s.cfg.Bucket, host), FreeBytes: -1}
	if s.prefix != "" {
		feat.Backend = fmt.Sprintf("S3 bucket %s at %s, below %s", s.cfg.Bucket, host, s.prefix)
	}
	if err := s.bucket(ctx); err != nil {
		return feat, err
	}
	cond, err := storage.Probe(ctx, s)
	if err != nil {
		return feat, err
	}
	feat.Conditional = cond
	_, err = s.Link(ctx, "probe/link.txt", time.Minute)
	feat.Links = err == nil
	return feat, err
}

// list looks at the first object of the bucket.
func (s *Store) list(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for o := range s.client.ListObjects(ctx, s.cfg.Bucket, minio.ListObjectsOptions{MaxKeys: 1}) {
		return o.Err
	}
	return nil
}

// bucket makes sure that the bucket is there.
func (s *Store) bucket(ctx context.Context) error {
	ok, err := s.client.BucketExists(ctx, s.cfg.Bucket)
	if err == nil && ok {
		return nil
	}
	if err == nil || errors.Is(s.fail(ctx, "", "", err), storage.ErrForbidden) {
		// Servers answer so to strangers too, and this question without a word: a list says why.
		err = s.list(ctx)
	}
	if err != nil && minio.ToErrorResponse(err).Code != minio.NoSuchBucket {
		err = s.fail(ctx, "look up bucket", "", err)
		if errors.Is(err, storage.ErrForbidden) {
			return fmt.Errorf("these credentials may not use the bucket %q at %s: %w", s.cfg.Bucket, s.cfg.Endpoint, err)
		}
		return fmt.Errorf("the bucket %q at %s cannot be reached: %w", s.cfg.Bucket, s.cfg.Endpoint, err)
	}
	if err == nil {
		return nil
	}
	if !s.cfg.Create {
		return fmt.Errorf("there is no bucket %q at %s; make it, or add create=true to the storage URL", s.cfg.Bucket, s.cfg.Endpoint)
	}
	err = s.client.MakeBucket(ctx, s.cfg.Bucket, minio.MakeBucketOptions{Region: s.cfg.Region})
	if code := minio.ToErrorResponse(err).Code; err != nil && code != minio.BucketAlreadyOwnedByYou && code != minio.BucketAlreadyExists {
		return fmt.Errorf("making the bucket %q at %s: %w", s.cfg.Bucket, s.cfg.Endpoint, s.fail(ctx, "make bucket", "", err))
	}
	return nil
}
