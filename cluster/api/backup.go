package api

import (
	"context"
	"net/http"
	"path/filepath"

	"filippo.io/age"

	"skep/cluster"
)

// backUp streams the database, encrypted for the recipient in the request. When it fails on
// the way the connection breaks off, since the answer has begun.
func (s *Server) backUp(_ context.Context, r *request) (response, error) {
	var wanted cluster.BackupRequest
	if err := r.decodeStrict(&wanted); err != nil {
		return response{}, err
	}
	recipient, err := age.ParseX25519Recipient(wanted.Recipient)
	if err != nil {
		return response{}, fail(cluster.ErrInvalid, "Recipient: must be one of the age tool (age1…): %v", err)
	}
	manager := r.manager
	return response{stream: func(_ context.Context, w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/octet-stream")
		if err := manager.Backup(w, recipient); err != nil {
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
	case len(wanted.Key) != cluster.BackupKeySize:
		return response{}, fail(cluster.ErrInvalid, "Key: must be %d bytes, not %d", cluster.BackupKeySize, len(wanted.Key))
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
