package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// errChanged means that the server now has another version of the file.
var errChanged = errors.New("the file changed on the server while it was downloaded")

// permanent wraps errors that trying again does not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// after wraps an error with the pause that the server asked for.
type after struct {
	error
	pause time.Duration
}

func (a after) Unwrap() error { return a.error }

// retry calls f until it returns no error, with growing pauses. progress says
// that f got further than before: then the count of failures starts again.
func retry(ctx context.Context, o Options, f func() (progress bool, err error)) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval = o.Pause
	pauses.MaxInterval = 30 * time.Second
	for failures := 0; ; {
		progress, err := f()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var p permanent
		if errors.As(err, &p) {
			return p.error
		}
		if progress {
			failures = 0
			pauses.Reset()
		}
		if failures++; failures >= o.Attempts {
			return fmt.Errorf("%w (after %d attempts)", err, failures)
		}
		pause := pauses.NextBackOff()
		var a after
		if errors.As(err, &a) {
			pause = max(pause, a.pause)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// statusError is the answer's status as an error; permanent when asking again
// cannot help.
func statusError(resp *http.Response) error {
	err := fmt.Errorf("the server answered %s", resp.Status)
	switch c := resp.StatusCode; {
	case c == http.StatusUnauthorized, c == http.StatusForbidden:
		return permanent{fmt.Errorf("%w: the file needs a token (HF_TOKEN) whose owner accepted the licence", err)}
	case c == http.StatusTooManyRequests, c == http.StatusServiceUnavailable:
		seconds, parseErr := strconv.Atoi(resp.Header.Get("Retry-After"))
		if parseErr != nil || seconds < 0 {
			return err
		}
		return after{err, min(time.Duration(seconds)*time.Second, time.Minute)}
	case c == http.StatusRequestTimeout, c >= 500:
		return err
	}
	return permanent{err}
}

var errStalled = errors.New("the server sends nothing")

// watch returns a context that ends when alive was not called for a while.
func watch(ctx context.Context, stall time.Duration) (_ context.Context, alive func(), stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(stall, func() { cancel(errStalled) })
	return ctx, func() { t.Reset(stall) }, func() { t.Stop(); cancel(nil) }
}

// why names the stall when that is what ended a request of watch's context. Of
// the client's errors it drops the address, which may hold a signature; whoever
// reports the error names the address without it.
func why(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// copyAt writes body to f from at up to end (to the end of body when end is
// negative) and returns how far it came. More than that is an error.
func copyAt(f *os.File, at, end int64, body io.Reader, alive func(), add func(int64)) (int64, error) {
	buf := make([]byte, 256<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			alive()
			if end >= 0 && at+int64(n) > end {
				return at, errors.New("the server sent more than it announced")
			}
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return at, permanent{err}
			}
			at += int64(n)
			add(int64(n))
		}
		if errors.Is(err, io.EOF) {
			return at, nil
		}
		if err != nil {
			return at, err
		}
	}
}
