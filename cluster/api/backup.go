package api

import (
	"context"
	"net/http"
	"path/filepath"

	"skep/cluster"
)

// backUp streams the database, sealed under the key in the request. When it fails on
// the way the connection breaks off, since the answer has begun.
func (s *Server) backUp(_ context.Context, r *request) (response, error) {
	var wanted cluster.BackupRequest
	if err := r.decodeStrict(&wanted); err != nil {
		return response{}, err
	}
	if len(wanted.Key) != 32 {
		return response{}, fail(cluster.ErrInvalid, "Key: must be 32 bytes, not %d", len(wanted.Key))
	}
	manager := r.manager
	return response{stream: func(_ context.Context, w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := manager.Backup(w, wanted.Key); err != nil {
			if unsaid, due := s.odd.Due(s.Now(), "backup"); due {
				s.Log.Warn("backup broke off", "error", err, "unsaid", unsaid)
			}
			panic(http.ErrAbortHandler) // so that the client doesn't take the part it got for the whole
		}
	}}, nil
}

// restore makes this node the first manager of a cluster out of a backup of it.
func (s *Server) restore(ctx context.Context, r *request) (response, error) {
	var wanted cluster.RestoreRequest
	if err := r.decodeStrict(&wanted); err != nil {
		return response{}, err
	}
	switch {
	case !filepath.IsAbs(wanted.Path):
		return response{}, fail(cluster.ErrInvalid, "Path: must be absolute, not %q", wanted.Path)
	case wanted.Offset < 0:
		return response{}, fail(cluster.ErrInvalid, "Offset: must not be negative")
	case len(wanted.Key) != 32:
		return response{}, fail(cluster.ErrInvalid, "Key: must be 32 bytes, not %d", len(wanted.Key))
	}
	if err := checkAvailability(wanted.Availability, true); err != nil {
		return response{}, err
	}
	id, err := s.Node.Restore(ctx, wanted)
	if err != nil {
		return response{}, err
	}
	return response{body: id}, nil
}
