package api

import (
	"bytes"
	"context"
	"io"
	"net/http"

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
// is no leader. A session that could change something may be older than what forbids it.
func (s *Server) showConsole(_ context.Context, r *request) (response, error) {
	if err := s.mayUseConsole(false); err != nil {
		return response{}, err
	}
	reads := s.mayUseConsole(true) != nil
	return response{stream: func(ctx context.Context, w http.ResponseWriter) {
		ask := r.http.WithContext(ctx)
		if reads && ask.Header.Get(console.GrantHeader) == console.GrantWrite {
			ask.Header = ask.Header.Clone()
			ask.Header.Set(console.GrantHeader, console.GrantRead)
		}
		ask.Body = io.NopCloser(bytes.NewReader(r.body))
		s.console.ServeHTTP(w, ask)
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

// last are the events that are kept, the oldest first.
func (r *recorder) last() []*events.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*events.Message(nil), r.kept[max(0, len(r.kept)-keptEvents):]...)
}
