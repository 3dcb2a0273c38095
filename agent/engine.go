package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/versions"

	"skep/cluster"
)

const (
	// requestTimeout is how long a manager may take for the head of its request, engineTimeout
	// how long the engine may take to begin an answer, and smallTimeout the same for what the
	// agent itself asks before.
	requestTimeout = 10 * time.Second
	engineTimeout  = time.Minute
	smallTimeout   = 10 * time.Second
	// maxEngineBody bounds the body of a request, and what is read of the engine's answers here.
	maxEngineBody = 2 << 20
	// maxEngineHeader bounds the head of a request.
	maxEngineHeader = 64 << 10
)

// execIDs are what engines name an exec by.
var execIDs = regexp.MustCompile(`^[0-9a-f]{64}$`)

// engineCalls hands what a session hears to answerCalls.
type engineCalls struct {
	// asked are managers to call, managers are those that there are.
	asked    chan string
	managers chan []cluster.Peer
}

func newEngineCalls() engineCalls {
	return engineCalls{asked: make(chan string, cluster.MaxEngineRequests), managers: make(chan []cluster.Peer, 1)}
}

// ask has a manager called, unless as many are waiting to be as may be at a time.
func (c engineCalls) ask(managerID string) {
	select {
	case c.asked <- managerID:
	default: // The manager that waits says so.
	}
}

// keepOnly ends the calls to others. Only the session's reader may use it.
func (c engineCalls) keepOnly(managers []cluster.Peer) {
	select {
	case <-c.managers:
	default:
	}
	c.managers <- managers
}

// engineCall is a call that goes on.
type engineCall struct {
	managerID string
	cancel    context.CancelFunc
}

// answerCalls calls managers that ask for it, until ctx ends, and ends calls to who is no
// manager any more: removed ones must not keep a shell in a container.
func (a *Agent) answerCalls(ctx context.Context) {
	var answering sync.WaitGroup
	defer answering.Wait()
	open := map[*engineCall]bool{}
	ended := make(chan *engineCall)
	for {
		select {
		case <-ctx.Done():
			return
		case managerID := <-a.engineCalls.asked:
			if len(open) >= cluster.MaxEngineRequests {
				continue
			}
			calling, cancel := context.WithCancel(ctx)
			call := &engineCall{managerID, cancel}
			open[call] = true
			answering.Go(func() {
				defer cancel()
				if err := a.answerCall(calling, managerID); err != nil && calling.Err() == nil {
					a.log.Debug("answer a manager's call", "manager", managerID, "err", err)
				}
				select {
				case ended <- call:
				case <-ctx.Done():
				}
			})
		case call := <-ended:
			delete(open, call)
		case managers := <-a.engineCalls.managers:
			for call := range open {
				if !slices.ContainsFunc(managers, func(peer cluster.Peer) bool { return peer.NodeID == call.managerID }) {
					call.cancel()
				}
			}
		}
	}
}

// answerCall calls a manager and serves one request of its, until that is done or ctx ends.
func (a *Agent) answerCall(ctx context.Context, managerID string) error {
	if a.cfg.CallManager == nil {
		return errors.New("this agent calls nobody")
	}
	dialing, cancel := context.WithTimeout(ctx, a.cfg.ConnectTimeout)
	defer cancel()
	conn, err := a.cfg.CallManager(dialing, managerID)
	if err != nil {
		return err
	}
	cluster.NoticeSilence(conn)
	stop := context.AfterFunc(ctx, func() { cluster.Break(conn) })
	defer stop()
	var handling sync.WaitGroup
	defer handling.Wait()
	handler := a.engineHandler()
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handling.Add(1)
			defer handling.Done()
			r.Body = http.MaxBytesReader(w, r.Body, maxEngineBody)
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: requestTimeout,
		MaxHeaderBytes:    maxEngineHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	server.SetKeepAlivesEnabled(false)
	if err := server.Serve(newSoleConn(conn)); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// soleConn is a listener with one connection, which ends with it.
type soleConn struct {
	net.Conn
	once   sync.Once
	taken  bool
	closed chan struct{}
}

func newSoleConn(conn net.Conn) *soleConn { return &soleConn{Conn: conn, closed: make(chan struct{})} }

// Accept gives the connection, and then waits for its end.
func (c *soleConn) Accept() (net.Conn, error) {
	if !c.taken {
		c.taken = true
		return c, nil
	}
	<-c.closed
	return nil, net.ErrClosed
}

// Addr is for net.Listener.
func (c *soleConn) Addr() net.Addr { return c.LocalAddr() }

// Close closes the connection.
func (c *soleConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// CloseWrite says that no more output comes.
func (c *soleConn) CloseWrite() error { return cluster.CloseWrite(c.Conn) }

// engineHandler passes requests on to the engine: those of this list, about containers of the
// node's own tasks. What these use, the agent itself tells.
func (a *Agent) engineHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+cluster.UsagePath, a.serveUsage)
	dialer, ok := a.cfg.Driver.(EngineDialer)
	if !ok {
		mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			refuseEngine(w, http.StatusNotImplemented, "this node's driver runs no containers that can be asked")
		})
		return mux
	}
	e := &engineProxy{agent: a, transport: &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialEngine(ctx) },
		DisableKeepAlives:     true,
		DisableCompression:    true,
		ResponseHeaderTimeout: engineTimeout,
	}}
	for _, pattern := range []string{
		"GET /{version}/containers/{id}/json", "GET /{version}/containers/{id}/logs",
		"GET /{version}/containers/{id}/top", "GET /{version}/containers/{id}/stats",
		"POST /{version}/containers/{id}/exec",
	} {
		mux.HandleFunc(pattern, e.ofContainer)
	}
	for _, pattern := range []string{
		"POST /{version}/exec/{id}/start", "POST /{version}/exec/{id}/resize", "GET /{version}/exec/{id}/json",
	} {
		mux.HandleFunc(pattern, e.ofExec)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuseEngine(w, http.StatusForbidden, "managers don't ask engines that")
	})
	return mux
}

// engineProxy passes requests on to the engine.
type engineProxy struct {
	agent     *Agent
	transport *http.Transport
}

func (e *engineProxy) ofContainer(w http.ResponseWriter, r *http.Request) {
	if id := r.PathValue("id"); e.agent.runs(id) {
		e.pass(w, r)
	} else {
		refuseEngine(w, http.StatusNotFound, "No such container: "+id)
	}
}

func (e *engineProxy) ofExec(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var found struct{ ContainerID string }
	if !execIDs.MatchString(id) {
		refuseEngine(w, http.StatusNotFound, "No such exec instance: "+id)
		return
	}
	if err := e.get(r.Context(), "/exec/"+id+"/json", &found); err != nil && !errors.Is(err, cluster.ErrNotFound) {
		refuseEngine(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	if !e.agent.runs(found.ContainerID) {
		refuseEngine(w, http.StatusNotFound, "No such exec instance: "+id)
		return
	}
	e.pass(w, r)
}

// runs tells whether a container is that of a task of this node.
func (a *Agent) runs(containerID string) (known bool) {
	a.call(func(held *taskSet) { known = held.hasContainer(containerID) })
	return known
}

func (s *taskSet) hasContainer(id string) bool {
	for _, t := range s.tasks {
		if id != "" && t.status.ContainerID == id && !t.removing && !t.tidied {
			return true
		}
	}
	return false
}

// pass passes a request on as it is, at the version of the API that it names, or the closest that
// the engine has.
func (e *engineProxy) pass(w http.ResponseWriter, r *http.Request) {
	var engine struct{ ApiVersion, MinAPIVersion string }
	if err := e.get(r.Context(), "/version", &engine); err != nil {
		refuseEngine(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	version := r.PathValue("version")
	switch asked := version[min(1, len(version)):]; {
	case engine.ApiVersion != "" && versions.GreaterThan(asked, engine.ApiVersion):
		version = "v" + engine.ApiVersion
	case engine.MinAPIVersion != "" && versions.LessThan(asked, engine.MinAPIVersion):
		version = "v" + engine.MinAPIVersion
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL = &url.URL{Scheme: "http", Host: "docker", Path: "/" + version + p.In.URL.Path[len("/"+r.PathValue("version")):], RawQuery: p.In.URL.RawQuery}
			p.Out.Host = "docker"
		},
		Transport:     e.transport,
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			refuseEngine(w, http.StatusServiceUnavailable, "the engine of this node doesn't answer: "+err.Error())
		},
		ErrorLog: slog.NewLogLogger(e.agent.log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
}

// get asks the engine something small.
func (e *engineProxy) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path, nil)
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	answer, err := e.transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("the engine of this node doesn't answer: %w: %w", cluster.ErrUnavailable, err)
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return fmt.Errorf("ask the engine: %s: %w", answer.Status, cluster.ErrNotFound)
	default:
		return fmt.Errorf("ask the engine: %s: %w", answer.Status, cluster.ErrUnavailable)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxEngineBody)).Decode(into); err != nil {
		return fmt.Errorf("read the engine's answer: %w: %w", cluster.ErrUnavailable, err)
	}
	return nil
}

// refuseEngine answers as engines do.
func refuseEngine(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct { // Who doesn't read it has gone.
		Message string `json:"message"`
	}{message})
}
