package supervise

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"
)

// relay passes what the child tells systemd on to it, which listens to a service's
// first process only.
type relay struct {
	dir, path string
	from      *net.UnixConn
	to        net.Conn
	done      chan struct{}
}

func newRelay(socket string) (*relay, error) {
	r := &relay{done: make(chan struct{})}
	var err error
	if r.to, err = net.Dial("unixgram", socket); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "dream-"); err == nil {
		r.path = filepath.Join(r.dir, "notify")
		r.from, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: r.path, Net: "unixgram"})
	}
	if err != nil {
		return nil, errors.Join(err, r.to.Close(), os.RemoveAll(r.dir))
	}
	go func() {
		defer close(r.done)
		b := make([]byte, 4<<10)
		for {
			n, err := r.from.Read(b)
			if err != nil {
				return
			}
			_, _ = r.to.Write(b[:n]) // as the child: what systemd does not hear is lost
		}
	}()
	return r, nil
}

// close passes on the last words of a child that is gone.
func (r *relay) close() {
	_ = r.from.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	<-r.done
	_ = r.from.Close()
	_ = r.to.Close()
	_ = os.RemoveAll(r.dir)
}
