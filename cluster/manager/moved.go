package manager

import (
	"net/http"

	"skep/cluster"
)

// here takes in the word of a manager where it is.
func (m *Manager) here(r *http.Request, request ReadyRequest) error {
	if err := checkAddr(request.Addr); err != nil {
		return err
	}
	return m.transport.Moved(r.Context(), callerOf(r).NodeID, request.Addr)
}

// onAny makes a route of what every manager does with one kind of request.
func onAny[T any](m *Manager, do func(r *http.Request, request T) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request T
		err := readBody(w, r, &request)
		if err == nil {
			err = do(r, request)
		}
		if err != nil {
			if unsaid, due := m.turnedAway.Due(m.cfg.Now(), callerOf(r).NodeID); due {
				m.log.Warn("refuse a request", "addr", r.RemoteAddr, "path", r.URL.Path, "err", err, "unsaid", unsaid)
			}
			refuse(w, err)
			return
		}
		writeBody(w, Admission{NodeID: m.cfg.NodeID})
	})
}

// Elsewhere are the addresses at which this manager would look for the others, by what
// raft's configuration and they themselves say.
func (m *Manager) Elsewhere() []cluster.Peer {
	var others []cluster.Peer
	for _, server := range m.servers() {
		if string(server.ID) != m.cfg.NodeID {
			others = append(others, cluster.Peer{NodeID: string(server.ID), Addr: string(server.Address)})
		}
	}
	return others
}
