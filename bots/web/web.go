// Package web is the console: a page that understands the chat commands, a
// gallery, a page for each job with live progress and a 3D viewer, and the JSON
// API below them. It is one more platform beside Discord and Slack, and the
// place where signed links lead.
package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"dreamcad/bots"
	"dreamcad/queue"
	"dreamcad/storage"
	"dreamcad/storage/links"
)

// Config says where the console listens and who may use it.
type Config struct {
	Listen string // HOST:PORT; port 0 picks a free one
	// PublicURL is the address under which people reach the console; empty:
	// the address that it listens on.
	PublicURL string
	// Token is the password of everything but signed links. Empty is allowed
	// on loopback addresses only; the caller checks that.
	Token string
	// LinkLife is how long the links in API answers work.
	LinkLife time.Duration
}

// Jobs is what the console reads of the queue.
type Jobs interface {
	Job(ctx context.Context, id string) (queue.Job, error)
	Resolve(ctx context.Context, ending string) (string, error)
	List(ctx context.Context, f queue.Filter) ([]queue.Job, error)
	Place(ctx context.Context, id string) (queue.Place, error)
	Events(ctx context.Context, after string, max int, wait time.Duration) ([]queue.Event, error)
	End(ctx context.Context) (string, error)
}

// Commands executes what people type and click; *bots.Service does.
type Commands interface {
	Line(ctx context.Context, line string, c bots.Command) bots.Reply
	Execute(ctx context.Context, c bots.Command) bots.Reply
}

// Deps are the console's collaborators.
type Deps struct {
	Jobs     Jobs
	Commands Commands
	Store    storage.Store
	Keys     links.Keys // sign and check links
	Assets   fs.FS
	Built    bool // Assets holds the bundle
	Log      *slog.Logger
	// Monitor shows the sensors of the service under /monitor; nil: nothing.
	Monitor http.Handler
	// Ready reports what keeps the service from working; nil: all is well.
	Ready func(ctx context.Context) error
}

// Server is the console. Make it with New, run it with Run.
type Server struct {
	config   Config
	deps     Deps
	listener net.Listener
	live     *live
	signer   links.Signer
}

// New listens, so that a port in use is known before anything else starts.
func New(c Config, d Deps) (*Server, error) {
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("start the web console on %q (another program may use the port; choose one with web.listen): %w", c.Listen, err)
	}
	if c.LinkLife == 0 {
		c.LinkLife = 24 * time.Hour
	}
	s := &Server{config: c, deps: d, listener: listener, live: newLive(d.Jobs, d.Log)}
	s.signer = links.Signer{Keys: d.Keys}
	return s, nil
}

// URL is where the console can be reached.
func (s *Server) URL() string {
	if s.config.PublicURL != "" {
		return s.config.PublicURL
	}
	addr := s.listener.Addr().(*net.TCPAddr)
	if addr.IP.IsUnspecified() || addr.IP.IsLoopback() {
		return fmt.Sprintf("http://localhost:%d", addr.Port)
	}
	return "http://" + addr.String()
}

// Run serves until ctx ends, then lets requests under way finish for a moment.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.listener) }()
	liveDone := make(chan struct{})
	go func() { s.live.run(ctx); close(liveDone) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the web console: %w", err)
	case <-ctx.Done():
	}
	<-liveDone
	stop, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(stop); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stop the web console: %w", err)
	}
	return nil
}

// Handler routes all requests. Signed links need only their signature;
// everything else needs the token, if one is set.
func (s *Server) Handler() http.Handler {
	open := http.NewServeMux()
	open.Handle("GET /r/", &links.Handler{Store: s.deps.Store, Keys: s.deps.Keys, Direct: true, Log: s.deps.Log})
	open.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	open.HandleFunc("GET /readyz", s.ready)

	closed := http.NewServeMux()
	closed.HandleFunc("GET /{$}", s.consolePage)
	closed.HandleFunc("GET /jobs/{id}", s.jobPage)
	if s.deps.Monitor != nil {
		closed.Handle("GET /monitor", s.deps.Monitor)
	}
	closed.HandleFunc("POST /api/command", s.command)
	closed.HandleFunc("GET /api/jobs", s.listJobs)
	closed.HandleFunc("GET /api/jobs/{id}", s.getJob)
	closed.HandleFunc("GET /api/jobs/{id}/events", s.jobEvents)
	closed.Handle("GET /assets/", http.StripPrefix("/assets/", cacheFor(time.Hour, http.FileServerFS(s.deps.Assets))))
	open.Handle("/", http.NewCrossOriginProtection().Handler(s.authenticate(closed)))
	return secure(open)
}

// authenticate asks for the token as the password of HTTP basic authentication.
func (s *Server) authenticate(next http.Handler) http.Handler {
	if s.config.Token == "" {
		return next
	}
	want := sha256.Sum256([]byte(s.config.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		got := sha256.Sum256([]byte(password))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="dreamcad", charset="UTF-8"`)
			http.Error(w, "this console needs its token as password", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Requester is who uses the console: there is one person, the owner of the token.
func Requester() queue.Requester {
	return queue.Requester{Platform: "web", ID: "console"}
}

// secure sets the headers that keep a page to its own origin. The viewer
// decodes textures through blob: URLs and compiles WebAssembly.
func secure(next http.Handler) http.Handler {
	const policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; " +
		"img-src 'self' blob: data:; connect-src 'self' blob: data:; worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

func cacheFor(d time.Duration, next http.Handler) http.Handler {
	value := fmt.Sprintf("private, max-age=%d", int(d.Seconds()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", value)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.deps.Ready != nil {
		if err := s.deps.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ready")
}
