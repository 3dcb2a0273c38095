package api

import (
	"context"
	"net/http"
	"runtime/pprof"
)

// showGoroutines tells what the daemon does just now, for `skep support dump`: how many goroutines
// stand where, without any of their values.
func (s *Server) showGoroutines(context.Context, *request) (response, error) {
	return response{stream: func(_ context.Context, w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		// The client may have gone; there is nobody left to tell.
		_ = pprof.Lookup("goroutine").WriteTo(w, 1)
	}}, nil
}
