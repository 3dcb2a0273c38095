package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

const (
	// retryFirst to retryLast are waited before a request that found no leader is tried
	// again, unless another leader is known sooner: twice as long each time, since most
	// leaders are replaced in no time.
	retryFirst, retryLast = 2 * time.Millisecond, 32 * time.Millisecond
	// electedWait is how long a forwarded request waits for a manager that has been
	// elected, but can't answer yet, or doesn't know so yet.
	electedWait = 250 * time.Millisecond
	// readHold is how long a read waits for a leader: longer than any election takes.
	readHold = 3 * time.Second
	// catchUpLimit is how long a manager may take to have what a read must see, before the leader is
	// asked instead.
	catchUpLimit = time.Second
	// countTimeout bounds the question which managers answer.
	countTimeout = 1500 * time.Millisecond
	// writeTimeout bounds a write on the leader, which commits within milliseconds.
	writeTimeout = 20 * time.Second
)

// local serves a request on the node's own sockets.
func (s *Server) local(w http.ResponseWriter, r *http.Request, c call) {
	r, end := s.traced(w, s.byUser(r), c)
	defer end()
	began := s.Now()
	defer func() { s.count(w, c, began) }()
	if c.route == nil {
		if swarmPaths[firstPart(c.path)] {
			s.writeError(w, r, errPage)
			return
		}
		if err := s.refuseNewer(r.Context(), w, r, c); err != nil {
			s.writeError(w, r, err)
			return
		}
		s.pass(w, r)
		return
	}
	request, err := s.request(w, r, c)
	if err != nil {
		r, end := s.audited(w, r, c)
		s.writeError(w, r, err)
		end(true)
		return
	}
	if c.route.kind == local {
		s.answer(w, r, c, request)
		return
	}
	if c.route.anyManager && request.flag("follow") && s.follow(w, r, c, request) {
		return
	}
	s.onLeader(w, r, c, request)
}

// follow serves a stream from this manager's own copy of the database. It returns
// false, with nothing written, when that can't be done: what is asked for may be
// too new to be here already.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, c call, from *request) bool {
	manager := s.Node.Manager()
	if manager == nil {
		return false
	}
	request := *from
	request.manager = manager
	answer, err := c.route.handle(r.Context(), &request)
	if err != nil {
		return false
	}
	s.write(r.Context(), w, r, answer)
	return true
}

// answer runs a handler of this node.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, c call, request *request) {
	r, end := s.audited(w, r, c)
	answer, err := c.route.handle(r.Context(), request)
	defer func() { end(!answer.engine) }() // What is the engine's is no matter of the cluster's.
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	if answer.engine && len(request.body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(request.body))
		r.ContentLength = int64(len(request.body))
	}
	if answer.engine {
		if answer.after != nil {
			recorder := &statusWriter{ResponseWriter: w}
			defer func() { answer.after(recorder.status) }()
			w = recorder
		}
		if err := s.refuseNewer(r.Context(), w, r, c); err != nil {
			s.writeError(w, r, err)
			return
		}
		if answer.path != "" {
			r.URL = &url.URL{Path: answer.path, RawQuery: r.URL.RawQuery}
		}
	}
	s.write(r.Context(), w, r, answer)
}

// onLeader sees a request of the leader's routes done: here if this manager leads,
// there otherwise. While there is no leader the request waits; it is tried
// again only when it certainly changed nothing. When none appears it is refused.
func (s *Server) onLeader(w http.ResponseWriter, r *http.Request, c call, request *request) {
	r, end := s.audited(w, r, c)
	defer end(true)
	limit := s.Hold
	if c.route.kind != write {
		limit = min(limit, readHold)
	}
	hold, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		manager := s.Node.Manager()
		if manager == nil {
			starting := s.Node.Starting()
			if starting == nil || !pause(hold, wait, nil) {
				s.writeError(w, r, cmp.Or(starting, s.notManager()))
				return
			}
			continue
		}
		changed := manager.LeaderChanged()
		peer, self, err := manager.Leader(hold)
		if err != nil {
			s.answerWithoutLeader(w, r, c, request, manager)
			return
		}
		if self {
			answer, err := s.execute(r.Context(), manager, c.route, request)
			switch {
			case err == nil:
				s.write(r.Context(), w, r, answer)
				return
			case !lostLeader(err):
				noteOf(r.Context()).failed(err)
				s.writeError(w, r, err)
				return
			}
		} else if c.route.kind == read && s.readHere(w, r, c, request, manager) || s.forwards(w, r, c, request, manager, peer) {
			return
		}
		if !pause(hold, wait, changed) {
			s.answerWithoutLeader(w, r, c, request, manager)
			return
		}
	}
}

// readHere serves a read from this manager's own copy of the database, once that has all that a read must see. It
// returns false, with nothing written, when that can't be done soon.
func (s *Server) readHere(w http.ResponseWriter, r *http.Request, c call, from *request, manager Manager) bool {
	ctx, cancel := context.WithTimeout(r.Context(), catchUpLimit)
	err := manager.CatchUp(ctx)
	cancel()
	if err != nil {
		s.Log.Debug("the leader is asked, since this manager isn't current", "error", err)
		return r.Context().Err() != nil // the client has gone
	}
	request := *from
	request.manager = manager
	answer, err := c.route.handle(r.Context(), &request)
	if err != nil {
		noteOf(r.Context()).failed(err)
		s.writeError(w, r, err)
		return true
	}
	s.write(r.Context(), w, r, answer)
	return true
}

// pause waits for so long, or until there is something new; false means that ctx ended first.
func pause(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-changed:
		return true
	case <-timer.C:
		return true
	}
}

// answerWithoutLeader is the end of a request for which there was no leader in time. Nothing is read
// from this manager's own copy: it may lack what was acknowledged, and all that came after
// its last snapshot if the manager was restarted. No client shows a mark on an answer, and
// whoever reads an empty list takes it for the truth.
func (s *Server) answerWithoutLeader(w http.ResponseWriter, r *http.Request, c call, from *request, manager Manager) {
	if c.route.alone {
		request := *from
		request.manager = manager
		s.answer(w, r, c, &request)
		return
	}
	if why := manager.Trouble(); why != "" {
		s.writeError(w, r, fail(cluster.ErrNoLeader, "%s (manager %s: %s)", textNoLeader, manager.NodeID(), why))
		return
	}
	if why := s.Node.Info().Error; why != "" {
		s.writeError(w, r, fail(cluster.ErrNoLeader, "%s (%s)", textNoLeader, why))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), countTimeout)
	defer cancel()
	answer, needed, all := manager.Quorum(ctx)
	s.writeError(w, r, fail(cluster.ErrNoLeader, "%s (%d of %d managers answer, and %d are needed)", textNoLeader, answer, all, needed))
}

// remote serves another manager's request.
func (s *Server) remote(w http.ResponseWriter, r *http.Request, c call) {
	r, end := s.traced(w, byForwarder(r), c)
	defer end()
	if c.route != nil && c.route.byManagers {
		s.answer(w, r, c, &request{http: r, version: c.version, vars: c.vars})
		return
	}
	if c.route == nil || c.route.kind == local {
		s.writeError(w, r, errPage)
		return
	}
	manager := s.Node.Manager()
	if manager == nil {
		s.writeError(w, r, cluster.ErrNotLeader)
		return
	}
	elected, cancel := context.WithTimeout(r.Context(), electedWait)
	_, self, err := manager.Leader(elected)
	cancel()
	if err != nil || !self {
		s.writeError(w, r, cluster.ErrNotLeader)
		return
	}
	request, err := s.request(w, r, c)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	r, note := withNote(r, c.route)
	answer, err := s.execute(r.Context(), manager, c.route, request)
	note.tell(w.Header(), err)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.write(r.Context(), w, r, answer)
}

// execute runs a handler on the leader; a read waits for a state that is current.
func (s *Server) execute(ctx context.Context, manager Manager, route *route, from *request) (response, error) {
	request := *from
	request.manager = manager
	if route.kind != write {
		// The handler's own context lasts longer: logs may follow for ever.
		limit := s.Hold
		if route.alone {
			limit = countTimeout
		}
		fresh, cancel := context.WithTimeout(ctx, limit)
		err := manager.ReadBarrier(fresh)
		cancel()
		if err != nil && !(route.alone && errors.Is(err, cluster.ErrUnavailable)) {
			return response{}, err
		}
		return route.handle(ctx, &request)
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return route.handle(ctx, &request)
}

// lostLeader tells whether the request failed for want of leadership alone and
// certainly changed nothing.
func lostLeader(err error) bool {
	return !errors.Is(err, cluster.ErrUnknownOutcome) &&
		(errors.Is(err, cluster.ErrNotLeader) || errors.Is(err, cluster.ErrNoLeader))
}

// notManager says why this node can't answer for the cluster.
func (s *Server) notManager() error {
	switch info := s.Node.Info(); info.LocalNodeState {
	case swarm.LocalNodeStateError:
		return fail(cluster.ErrNotManager, "This node is not a swarm manager: %s", info.Error)
	case swarm.LocalNodeStateLocked:
		return fail(cluster.ErrLocked, textLocked)
	case swarm.LocalNodeStateActive:
		return fail(cluster.ErrNotManager, textWorker)
	default:
		return fail(cluster.ErrNotManager, textNoSwarm)
	}
}
