// Package download fetches one large file over HTTP: in parallel ranges, each
// retried where it broke off, and resumable by a later process.
//
// While it runs, PATH.part has the final size with holes, and PATH.part.json
// says which ranges are there; when all are, PATH.part is renamed to PATH. What
// the file contains is for the caller to check.
package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options of a download. The zero value works.
type Options struct {
	Client   *http.Client  // nil: http.DefaultClient
	Header   http.Header   // added to every request; Authorization is not sent on to other hosts
	Parallel int           // connections, default 4
	Chunk    int64         // bytes of a range, default 16 MiB
	Attempts int           // failures of a range without a byte of progress before giving up, default 8
	Pause    time.Duration // before the second attempt, growing from there, default 200 ms
	Stall    time.Duration // without a byte, after which a request is given up, default a minute
	// Progress is called from several goroutines with the bytes that are
	// there, those of an earlier run included.
	Progress func(done int64)
	// Grown is called every few megabytes with the size so far of a file whose
	// size the server does not say; an error ends the download.
	Grown func(path string, n int64) error
}

func (o Options) filled() Options {
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	o.Client = keepToken(o.Client)
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Chunk <= 0 {
		o.Chunk = 16 << 20
	}
	if o.Attempts <= 0 {
		o.Attempts = 8
	}
	if o.Pause <= 0 {
		o.Pause = 200 * time.Millisecond
	}
	if o.Stall <= 0 {
		o.Stall = time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	if o.Grown == nil {
		o.Grown = func(string, int64) error { return nil }
	}
	return o
}

// keepToken makes a client send Authorization to the server that was asked and
// to no other: net/http alone would also send it to other ports and to names
// below the server's, where a hub keeps the bytes.
func keepToken(from *http.Client) *http.Client {
	c := *from
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if first := via[0].URL; req.URL.Host != first.Host || first.Scheme == "https" && req.URL.Scheme != "https" {
			req.Header.Del("Authorization")
		}
		if from.CheckRedirect != nil {
			return from.CheckRedirect(req, via)
		}
		if len(via) >= 10 {
			return errors.New("too many redirects")
		}
		return nil
	}
	return &c
}

// Remote is what a server says about a file before it is downloaded.
type Remote struct {
	URL    string
	Bytes  int64  // -1 when the server does not say
	SHA256 string // as the Hugging Face hub declares it, "" when it does not
	Ranges bool   // the server serves parts
	ETag   string // strong, of the server that serves the bytes
}

// identity tells versions of a file apart.
func (r Remote) identity() string {
	if r.SHA256 != "" {
		return "sha256:" + r.SHA256
	}
	return r.ETag
}

var errEmpty = errors.New("the file is empty")

var hexDigest = regexp.MustCompile(`^"?([0-9a-f]{64})"?$`)

// Probe asks for the first byte of a file, which tells more than a HEAD does:
// whether ranges work, through all redirects.
func Probe(ctx context.Context, address string, o Options) (Remote, error) {
	o = o.filled()
	o.Attempts = min(o.Attempts, 3) // nothing is lost yet, and somebody waits
	r := Remote{URL: address, Bytes: -1}
	client, follow := *o.Client, o.Client.CheckRedirect
	// The hub declares the digest of a large file on the redirect to where its
	// bytes are, not on the answer itself.
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if r.SHA256 == "" && req.Response != nil {
			r.SHA256 = declared(req.Response.Header)
		}
		return follow(req, via)
	}
	err := retry(ctx, o, func() (bool, error) {
		rctx, _, stop := watch(ctx, min(o.Stall, 30*time.Second))
		defer stop()
		req, err := request(rctx, address, o)
		if err != nil {
			return false, err
		}
		req.Header.Set("Range", "bytes=0-0")
		resp, err := client.Do(req)
		if err != nil {
			return false, why(rctx, err)
		}
		defer resp.Body.Close()
		if r.SHA256 == "" {
			r.SHA256 = declared(resp.Header)
		}
		if tag := resp.Header.Get("ETag"); strings.HasPrefix(tag, `"`) {
			r.ETag = tag
		}
		switch resp.StatusCode {
		case http.StatusPartialContent:
			first, last, total, err := contentRange(resp)
			if err != nil {
				return false, err
			}
			if first != 0 || last != 0 {
				return false, fmt.Errorf("asked for the first byte, the server sent bytes %d to %d", first, last)
			}
			r.Bytes, r.Ranges = total, true
			return true, believable(total)
		case http.StatusRequestedRangeNotSatisfiable:
			return false, permanent{errEmpty}
		case http.StatusOK:
			if r.Bytes = resp.ContentLength; r.Bytes == 0 {
				return false, permanent{errEmpty}
			}
			return true, believable(r.Bytes)
		}
		return false, statusError(resp)
	})
	if err != nil {
		return Remote{}, fmt.Errorf("ask for %q: %w", Redact(address), err)
	}
	return r, nil
}

// believable refuses sizes that no file has: sums of sizes must not overflow.
func believable(bytes int64) error {
	if bytes > 1<<50 {
		return permanent{fmt.Errorf("the server announces %d bytes, which makes no sense", bytes)}
	}
	return nil
}

// declared reads the SHA-256 that the Hugging Face hub sends for large files.
func declared(h http.Header) string {
	if m := hexDigest.FindStringSubmatch(h.Get("X-Linked-Etag")); m != nil {
		return m[1]
	}
	return ""
}

// Fetch downloads what Probe found to path, which it replaces. When it fails
// or is cancelled, the parts that are there stay for the next call; of a server
// that serves no parts nothing stays.
func Fetch(ctx context.Context, r Remote, path string, o Options) error {
	o = o.filled()
	err := fetch(ctx, r, path, o)
	if errors.Is(err, errChanged) {
		// Another version appeared under the same address: what is here of
		// the old one is worthless.
		if err = discard(path); err == nil {
			if r, err = Probe(ctx, r.URL, o); err == nil {
				err = fetch(ctx, r, path, o)
			}
		}
	}
	if err != nil {
		return fmt.Errorf("download %q: %w", Redact(r.URL), err)
	}
	return nil
}

func fetch(ctx context.Context, r Remote, path string, o Options) error {
	if !r.Ranges || r.Bytes < 0 {
		return whole(ctx, r, path, o)
	}
	st, f, err := openPart(path, r, o.Chunk)
	if err != nil {
		return err
	}
	defer f.Close()
	var done atomic.Int64
	done.Store(st.doneBytes())
	o.Progress(done.Load())
	add := func(n int64) { o.Progress(done.Add(n)) }

	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Parallel)
	for _, i := range st.missing() {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			begin, end := st.chunk(i)
			if err := fetchRange(gctx, r, f, begin, end, o, add); err != nil {
				return err
			}
			return st.finish(i)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(partPath(path), path); err != nil {
		return err
	}
	return os.Remove(statePath(path))
}

// fetchRange fills [begin, end) of f, going on where a connection broke off.
func fetchRange(ctx context.Context, r Remote, f *os.File, begin, end int64, o Options, add func(int64)) error {
	at := begin
	defer func() {
		if at < end { // not counted as there by the state
			add(begin - at)
		}
	}()
	return retry(ctx, o, func() (bool, error) {
		rctx, alive, stop := watch(ctx, o.Stall)
		defer stop()
		req, err := request(rctx, r.URL, o)
		if err != nil {
			return false, err
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", at, end-1))
		if r.ETag != "" {
			req.Header.Set("If-Range", r.ETag)
		}
		resp, err := o.Client.Do(req)
		if err != nil {
			return false, why(rctx, err)
		}
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusPartialContent:
		case http.StatusOK, http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed:
			return false, permanent{errChanged}
		default:
			return false, statusError(resp)
		}
		first, last, total, err := contentRange(resp)
		if err != nil {
			return false, err
		}
		if total != r.Bytes {
			return false, permanent{errChanged}
		}
		if first != at || last >= end {
			return false, fmt.Errorf("asked for bytes %d to %d, the server sent %d to %d", at, end-1, first, last)
		}
		before := at
		at, err = copyAt(f, at, last+1, resp.Body, alive, add)
		if err == nil && at < end {
			err = fmt.Errorf("the server sent %d bytes of %d", at-begin, end-begin)
		}
		if at == end {
			return true, nil
		}
		return at > before, why(rctx, err)
	})
}

// grownEvery is how many bytes come between two calls of Options.Grown.
const grownEvery = 4 << 20

// whole downloads from a server that serves no parts: from the start, each
// time.
func whole(ctx context.Context, r Remote, path string, o Options) (err error) {
	if err := discard(path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, discard(path))
		}
	}()
	f, err := os.OpenFile(partPath(path), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	var done int64
	err = retry(ctx, o, func() (bool, error) {
		done = 0
		rctx, alive, stop := watch(ctx, o.Stall)
		defer stop()
		req, err := request(rctx, r.URL, o)
		if err != nil {
			return false, err
		}
		resp, err := o.Client.Do(req)
		if err != nil {
			return false, why(rctx, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return false, statusError(resp)
		}
		for {
			before := done
			if _, err := copyAt(f, done, -1, io.LimitReader(resp.Body, grownEvery), alive, func(n int64) { done += n; o.Progress(done) }); err != nil {
				return false, why(rctx, err)
			}
			switch ended := done-before < grownEvery; {
			case r.Bytes >= 0 && done > r.Bytes:
				return false, permanent{fmt.Errorf("the server sends more than the %d bytes that the file has", r.Bytes)}
			case ended && r.Bytes >= 0 && done < r.Bytes:
				return false, fmt.Errorf("the server sent %d bytes of %d", done, r.Bytes)
			case ended:
				return true, nil
			}
			if r.Bytes < 0 {
				if err := o.Grown(path, done); err != nil {
					return false, permanent{err}
				}
			}
		}
	})
	if err != nil {
		return err
	}
	if err := f.Truncate(done); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(partPath(path), path)
}

func request(ctx context.Context, address string, o Options) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, permanent{why(ctx, err)}
	}
	if u := req.URL; u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, permanent{errors.New("an address must begin with http:// or https:// and the name of a server")}
	}
	for k, v := range o.Header {
		req.Header[k] = v
	}
	// Ranges of a compressed form would be ranges of something else.
	req.Header.Set("Accept-Encoding", "identity")
	return req, nil
}

var rangePattern = regexp.MustCompile(`^bytes (\d+)-(\d+)/(\d+)$`)

// contentRange reads "bytes first-last/total".
func contentRange(resp *http.Response) (first, last, total int64, err error) {
	text := resp.Header.Get("Content-Range")
	m := rangePattern.FindStringSubmatch(text)
	if m == nil {
		return 0, 0, 0, fmt.Errorf("the server's Content-Range %q cannot be read", text)
	}
	var n [3]int64
	for i := range n {
		if n[i], err = strconv.ParseInt(m[i+1], 10, 64); err != nil {
			return 0, 0, 0, fmt.Errorf("the server's Content-Range %q cannot be read", text)
		}
	}
	if n[0] > n[1] || n[1] >= n[2] {
		return 0, 0, 0, fmt.Errorf("the server's Content-Range %q makes no sense", text)
	}
	return n[0], n[1], n[2], nil
}

// Redact drops what may be secret from an address for people: user, query.
func Redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
