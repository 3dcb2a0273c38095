package api

import (
	"net/http"
	"net/url"
	"strings"

	"skep/cluster"
)

// kind says who serves a route.
type kind int

const (
	local kind = iota // this node, whatever its role
	read              // the leader, from a state that is current
	write             // the leader, changing something
)

// route is one line of the table. A pattern's {x} stands for one segment of the
// path, {x...} for one or more.
type route struct {
	method  string
	pattern string
	kind    kind
	handle  handler
	// anyManager means that with follow=1 any manager serves it from its own copy of
	// the database, which catches up by itself: the stream outlives the leader.
	anyManager bool
	// alone means that without a leader this manager answers for itself.
	alone bool

	segments []string
}

// table lists all that isn't the local engine's.
func (s *Server) table() []route {
	routes := []route{
		{method: http.MethodGet, pattern: "/_ping", kind: local, handle: s.ping},
		{method: http.MethodHead, pattern: "/_ping", kind: local, handle: s.ping},
		{method: http.MethodGet, pattern: "/version", kind: local, handle: s.showVersion},
		{method: http.MethodGet, pattern: "/info", kind: local, handle: s.showInfo},
		{method: http.MethodGet, pattern: "/events", kind: local, handle: s.streamEvents},
		{method: http.MethodGet, pattern: "/distribution/{name...}/json", kind: local, handle: s.inspectDistribution},
		{method: http.MethodGet, pattern: "/skep/v1/status", kind: read, handle: s.showStatus, alone: true},
		{method: http.MethodPost, pattern: "/skep/v1/backup", kind: read, handle: s.backUp},
		{method: http.MethodPost, pattern: "/skep/v1/restore", kind: local, handle: s.restore},
		{method: http.MethodGet, pattern: "/skep/v1/services/{id}/revisions", kind: read, handle: s.listRevisions},
		{method: http.MethodPost, pattern: "/skep/v1/nodes/prune", kind: write, handle: s.pruneNodes},
		{method: http.MethodPost, pattern: "/skep/v1/services/{id}/rollback", kind: write, handle: s.rollbackService},
		{method: http.MethodPost, pattern: "/skep/v1/services/{id}/rebalance", kind: write, handle: s.rebalanceService},

		{method: http.MethodGet, pattern: "/containers/json", kind: local, handle: s.listContainers},
		{method: http.MethodGet, pattern: "/networks", kind: local, handle: s.listNetworks},
		{method: http.MethodGet, pattern: "/networks/{id}", kind: local, handle: s.inspectNetwork},
		{method: http.MethodPost, pattern: "/networks/create", kind: local, handle: s.createNetwork},

		{method: http.MethodPost, pattern: "/swarm/init", kind: local, handle: s.initSwarm},
		{method: http.MethodPost, pattern: "/swarm/join", kind: local, handle: s.joinSwarm},
		{method: http.MethodPost, pattern: "/swarm/leave", kind: local, handle: s.leaveSwarm},
		{method: http.MethodPost, pattern: "/swarm/unlock", kind: local, handle: s.unlockSwarm},
		{method: http.MethodGet, pattern: "/swarm", kind: read, handle: s.inspectSwarm},
		{method: http.MethodPost, pattern: "/swarm/update", kind: write, handle: s.updateSwarm},
		{method: http.MethodGet, pattern: "/swarm/unlockkey", kind: read, handle: s.showUnlockKey},

		{method: http.MethodGet, pattern: "/nodes", kind: read, handle: s.listNodes},
		{method: http.MethodGet, pattern: "/nodes/{id}", kind: read, handle: s.inspectNode},
		{method: http.MethodPost, pattern: "/nodes/{id}/update", kind: write, handle: s.updateNode},
		{method: http.MethodDelete, pattern: "/nodes/{id}", kind: write, handle: s.removeNode},

		{method: http.MethodGet, pattern: "/services", kind: read, handle: s.listServices},
		{method: http.MethodPost, pattern: "/services/create", kind: write, handle: s.createService},
		{method: http.MethodGet, pattern: "/services/{id}", kind: read, handle: s.inspectService},
		{method: http.MethodPost, pattern: "/services/{id}/update", kind: write, handle: s.updateService},
		{method: http.MethodDelete, pattern: "/services/{id}", kind: write, handle: s.removeService},
		{method: http.MethodGet, pattern: "/services/{id}/logs", kind: read, handle: s.serviceLogs, anyManager: true},

		{method: http.MethodGet, pattern: "/tasks", kind: read, handle: s.listTasks},
		{method: http.MethodGet, pattern: "/tasks/{id}", kind: read, handle: s.inspectTask},
		{method: http.MethodGet, pattern: "/tasks/{id}/logs", kind: read, handle: s.taskLogs, anyManager: true},

		{method: http.MethodGet, pattern: "/secrets", kind: read, handle: s.listSecrets},
		{method: http.MethodPost, pattern: "/secrets/create", kind: write, handle: s.createSecret},
		{method: http.MethodGet, pattern: "/secrets/{id}", kind: read, handle: s.inspectSecret},
		{method: http.MethodDelete, pattern: "/secrets/{id}", kind: write, handle: s.removeSecret},
		{method: http.MethodPost, pattern: "/secrets/{id}/update", kind: write, handle: s.updateSecret},
		{method: http.MethodGet, pattern: "/configs", kind: read, handle: s.listConfigs},
		{method: http.MethodPost, pattern: "/configs/create", kind: write, handle: s.createConfig},
		{method: http.MethodGet, pattern: "/configs/{id}", kind: read, handle: s.inspectConfig},
		{method: http.MethodDelete, pattern: "/configs/{id}", kind: write, handle: s.removeConfig},
		{method: http.MethodPost, pattern: "/configs/{id}/update", kind: write, handle: s.updateConfig},
	}
	for i := range routes {
		routes[i].segments = segments(routes[i].pattern)
	}
	return routes
}

// swarmPaths are the first segments of paths that are never passed on to the engine: it
// may be in a swarm of its own, which must not be taken for this cluster.
var swarmPaths = map[string]bool{
	"_ping": true, "version": true, "info": true, "events": true, "distribution": true, "skep": true,
	"swarm": true, "nodes": true, "services": true, "tasks": true, "secrets": true, "configs": true,
}

func segments(path string) []string { return strings.Split(strings.TrimPrefix(path, "/"), "/") }

// find looks the route of a request up; nil when there is none.
func (s *Server) find(method, path string) (*route, map[string]string) {
	parts := segments(path)
	for i := range s.routes {
		if r := &s.routes[i]; r.method == method {
			if vars, ok := match(r.segments, parts); ok {
				return r, vars
			}
		}
	}
	return nil, nil
}

// match compares a pattern with a path. Earlier lines of the table win, so fixed
// words come before {id}.
func match(pattern, parts []string) (map[string]string, bool) {
	vars := map[string]string{}
	for i, want := range pattern {
		name, variable := strings.CutPrefix(want, "{")
		name = strings.TrimSuffix(name, "}")
		if rest, many := strings.CutSuffix(name, "..."); variable && many {
			after := pattern[i+1:]
			count := len(parts) - i - len(after)
			if count < 1 {
				return nil, false
			}
			vars[rest] = strings.Join(parts[i:i+count], "/")
			more, ok := match(after, parts[i+count:])
			for k, v := range more {
				vars[k] = v
			}
			return vars, ok
		}
		switch {
		case i >= len(parts):
			return nil, false
		case variable && parts[i] != "":
			vars[name] = parts[i]
		case want != parts[i]:
			return nil, false
		}
	}
	return vars, len(pattern) == len(parts)
}

// parseQuery reads the query strictly.
func parseQuery(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(cluster.ErrInvalid, "invalid query: %v", err)
	}
	return query, nil
}
