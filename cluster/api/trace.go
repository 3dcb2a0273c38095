package api

import (
	"errors"
	"net/http"

	"skep/cluster/trace"
)

// untraced are the paths that are asked for over and over, by machines.
var untraced = map[string]bool{"/_ping": true, "/metrics": true}

// errFailed is all that a span says of an answer that is the server's fault.
var errFailed = errors.New("failed")

// traced is the request below a span of its own; end ends it with what was answered.
func (s *Server) traced(w http.ResponseWriter, r *http.Request, c call) (_ *http.Request, end func()) {
	if s.Trace == nil || untraced[c.path] {
		return r, func() {}
	}
	route := "engine"
	if c.route != nil {
		route = c.route.pattern
	}
	ctx, span := s.Trace.Serve(r.Context(), r.Header, "api "+r.Method+" "+route)
	return r.WithContext(ctx), func() {
		status, err := http.StatusOK, error(nil)
		if t, ok := w.(*tracked); ok && t.status != 0 {
			status = t.status
		}
		if status >= http.StatusInternalServerError {
			err = errFailed
		}
		span.Set(trace.Route, route)
		span.SetNumber(trace.Status, status)
		span.End(err)
	}
}
