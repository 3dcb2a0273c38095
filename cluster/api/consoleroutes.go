package api

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/docker/docker/api/types/events"

	"skep/cluster"
	"skep/cluster/api/console"
)

// newConsole makes the console of this node.
func (s *Server) newConsole() *console.Console {
	return console.New(console.Config{
		Manager: func() console.Manager {
			if manager := s.Node.Manager(); manager != nil {
				return manager
			}
			return nil
		},
		ManagerChanged: func() <-chan struct{} { return s.Node.ManagerChanged() }, NotManager: s.notManager, API: s.Local(), Events: s.events.last, Now: s.Now, Log: s.Log,
	})
}

// mayUseConsole refuses what the cluster doesn't allow pages to do, as far as this manager knows.
func (s *Server) mayUseConsole(write bool) error {
	switch use, _ := cluster.LabelConsole.Of(s.clusterSpec().Labels); {
	case use == cluster.ConsoleOff:
		return fail(cluster.ErrDenied, "this cluster has its console switched off: `skep cluster update --console=read` has it shown again")
	case write && use != cluster.ConsoleWrite:
		return fail(cluster.ErrDenied, "this cluster's console only shows: `skep cluster update --console=write` lets its pages change something")
	}
	return nil
}

// showConsole serves the pages, from this node's own copy of the database: also when there
// is no leader. A session that could change something may be older than what forbids it, and a
// stream that is read ends with it.
func (s *Server) showConsole(_ context.Context, r *request) (response, error) {
	refusal := s.mayUseConsole(false)
	if strings.HasPrefix(r.http.URL.Path, console.Static) {
		refusal = nil // What says that it is off has the same style.
	}
	reads := s.mayUseConsole(true) != nil
	return response{stream: func(ctx context.Context, w http.ResponseWriter) {
		if refusal != nil {
			s.console.Refuse(w, http.StatusForbidden, refusal.Error())
			return
		}
		ask := r.http.WithContext(ctx)
		if reads && ask.Header.Get(console.GrantHeader) == console.GrantWrite {
			ask.Header = ask.Header.Clone()
			ask.Header.Set(console.GrantHeader, console.GrantRead)
		}
		ask.Body = io.NopCloser(bytes.NewReader(r.body))
		s.console.ServeHTTP(console.Gate(w, s.Now, func() bool { return s.mayUseConsole(false) == nil }), ask)
	}}, nil
}

// openConsole gives a code.
func (s *Server) openConsole(_ context.Context, r *request) (response, error) {
	var asked cluster.ConsoleRequest
	if err := r.decodeStrict(&asked); err != nil {
		return response{}, err
	}
	if s.Node.Manager() == nil && s.Node.Starting() == nil {
		return response{}, fail(cluster.ErrNotManager, "%v: managers have the console, so ask one of them (skep -H)", s.notManager())
	}
	if err := s.mayUseConsole(asked.Write); err != nil {
		return response{}, err
	}
	grant := console.GrantRead
	if asked.Write {
		grant = console.GrantWrite
	}
	code, err := s.codes.New(grant)
	if err != nil {
		return response{}, err
	}
	return response{body: cluster.ConsoleCode{Code: code}}, nil
}

// enterConsole says what a code is for, and ends it.
func (s *Server) enterConsole(_ context.Context, r *request) (response, error) {
	var shown cluster.ConsoleCode
	if err := r.decodeStrict(&shown); err != nil {
		return response{}, err
	}
	grant, err := s.codes.Redeem(shown.Code)
	if err != nil {
		return response{}, err
	}
	return response{body: cluster.ConsoleGrant{Grant: grant}}, nil
}

// CheckConsoleTokens refuses a text that isn't a list of tokens as console.ParseTokens has it.
func CheckConsoleTokens(text []byte) error {
	_, err := console.ParseTokens(text)
	return err
}

// ConsolePort serves the console to browsers of other machines, by TLS, and nothing else. Whoever shows a code of
// openConsole is let in, or one of the tokens, which are read at each request: what is taken out ends its sessions.
// port is the one that this is served at, and knows tells whether a host is a name of this machine.
func (s *Server) ConsolePort(port string, tokens func() ([]byte, error), knows func(host string) bool) http.Handler {
	list := func() (console.Tokens, error) {
		text, err := tokens()
		if err != nil {
			return nil, err
		}
		return console.ParseTokens(text)
	}
	local := s.Local()
	return &console.Proxy{
		Port: port, Knows: knows, Now: s.Now, Random: s.codes.Random, Log: s.Log,
		Redeem: func(_ context.Context, secret string) (console.Access, error) {
			known, err := list()
			if err != nil {
				s.Log.Warn("read the console's tokens: nobody is let in by one", "err", err)
			}
			if access, ok := known.Find(secret); ok {
				return access, nil
			}
			grant, err := s.codes.Redeem(secret)
			if err != nil {
				return console.Access{}, fail(cluster.ErrDenied, "this is no token of this node's, nor a code that is good")
			}
			return console.Access{Grant: grant}, nil
		},
		Holds: func(a console.Access) bool {
			known, _ := list() // None, when they can't be read: sessions by a token wait until they can.
			return known.Hold(a)
		},
		Here: func(w http.ResponseWriter, r *http.Request, a console.Access) {
			who := cmp.Or(a.Who, "a browser") + " from " + r.RemoteAddr
			local.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, who)))
		},
	}
}

// ServeConsole is Serve for a port with ConsolePort.
func ServeConsole(ctx context.Context, listener net.Listener, handler http.Handler) error {
	return serve(ctx, listener, handler, ReadHeaderTimeout, consoleConnections)
}

// consoleConnections are at most so many to the console's port; a browser has up to six.
const consoleConnections = 256

// last are the events that are kept, the oldest first.
func (r *recorder) last() []*events.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*events.Message(nil), r.kept[max(0, len(r.kept)-keptEvents):]...)
}
