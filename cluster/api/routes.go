package api

import (
	"net/http"
	"net/url"
	pathpkg "path"
	"strings"

	"skep/cluster"
	"skep/cluster/api/console"
)

// kind says who serves a route.
type kind int

const (
	local      kind = iota // this node, whatever its role
	read                   // any manager, from its copy of the database when that is current
	readLeader             // the leader, from what it knows beside the database; that is current, too
	write                  // the leader, changing something
)

// route is one line of the table.
type route struct {
	method  string
	pattern string // as http.ServeMux has them; {name} is an image's, see oneName
	kind    kind
	handle  handler
	// anyManager means that with follow=1 any manager serves it from its own copy of
	// the database, which catches up by itself: the stream outlives the leader.
	anyManager bool
	// alone means that without a leader this manager answers for itself.
	alone bool
	// told has it in the audit log, as all that changes something is: see audits.
	told bool
	// byManagers means that other managers may ask it of this one, also when it doesn't lead.
	byManagers bool
}

// audits tells whether requests for the route are in the audit log.
func (r *route) audits() bool { return r.told || r.kind == write }

// table lists all that isn't the local engine's.
func (s *Server) table() []route {
	return []route{
		{method: http.MethodGet, pattern: "/_ping", kind: local, handle: s.ping},
		{method: http.MethodHead, pattern: "/_ping", kind: local, handle: s.ping},
		{method: http.MethodGet, pattern: "/version", kind: local, handle: s.showVersion},
		{method: http.MethodGet, pattern: "/info", kind: local, handle: s.showInfo},
		{method: http.MethodGet, pattern: "/metrics", kind: local, handle: s.showMetrics},
		{method: http.MethodGet, pattern: "/events", kind: local, handle: s.streamEvents},
		{method: http.MethodGet, pattern: "/distribution/{name}/json", kind: local, handle: s.inspectDistribution},
		{method: http.MethodGet, pattern: "/skep/v1/status", kind: readLeader, handle: s.showStatus, alone: true},
		{method: http.MethodGet, pattern: "/skep/v1/timeline", kind: local, handle: s.showTimeline},
		{method: http.MethodGet, pattern: "/skep/v1/audit", kind: local, handle: s.showAudit},
		{method: http.MethodGet, pattern: pathOwnAudit, kind: local, handle: s.showOwnAudit, byManagers: true},
		{method: http.MethodPost, pattern: "/skep/v1/backup", kind: readLeader, handle: s.backUp, told: true},
		{method: http.MethodPost, pattern: "/skep/v1/restore", kind: local, handle: s.restore, told: true},
		{method: http.MethodPost, pattern: "/skep/v1/console/session", kind: local, handle: s.openConsole, told: true},
		{method: http.MethodPost, pattern: "/skep/v1/console/redeem", kind: local, handle: s.enterConsole},
		{method: http.MethodGet, pattern: console.Root + "{page...}", kind: local, handle: s.showConsole},
		{method: http.MethodPost, pattern: console.Root + "{page...}", kind: local, handle: s.showConsole},
		{method: http.MethodGet, pattern: "/skep/v1/services/{id}/revisions", kind: read, handle: s.listRevisions},
		{method: http.MethodGet, pattern: "/skep/v1/services/{id}/why", kind: readLeader, handle: s.explainService},
		{method: http.MethodPost, pattern: "/skep/v1/services/plan", kind: readLeader, handle: s.planServices},
		{method: http.MethodPost, pattern: "/skep/v1/secrets/match", kind: read, handle: s.matchSecret},
		{method: http.MethodPost, pattern: "/skep/v1/configs/match", kind: read, handle: s.matchConfig},
		{method: http.MethodGet, pattern: "/skep/v1/goroutines", kind: local, handle: s.showGoroutines},
		{method: http.MethodGet, pattern: cluster.UsagePath, kind: local, handle: s.showUsage},
		{method: http.MethodGet, pattern: "/skep/v1/jobs", kind: readLeader, handle: s.listJobs},
		{method: http.MethodPost, pattern: "/skep/v1/jobs/{id}/run", kind: write, handle: s.runJob},
		{method: http.MethodPost, pattern: "/skep/v1/jobs/{id}/pause", kind: write, handle: s.pauseJob},
		{method: http.MethodPost, pattern: "/skep/v1/jobs/{id}/resume", kind: write, handle: s.resumeJob},
		{method: http.MethodPost, pattern: "/skep/v1/nodes/prune", kind: write, handle: s.pruneNodes},
		{method: http.MethodPost, pattern: "/skep/v1/nodes/{id}/drain", kind: write, handle: s.drainNode},
		{method: http.MethodGet, pattern: "/skep/v1/tokens", kind: readLeader, handle: s.listTokens},
		{method: http.MethodPost, pattern: "/skep/v1/tokens", kind: write, handle: s.createToken},
		{method: http.MethodDelete, pattern: "/skep/v1/tokens/{id}", kind: write, handle: s.removeToken},
		{method: http.MethodPost, pattern: "/skep/v1/services/{id}/rollback", kind: write, handle: s.rollbackService},
		{method: http.MethodPost, pattern: "/skep/v1/services/{id}/rebalance", kind: write, handle: s.rebalanceService},
		{method: http.MethodPost, pattern: "/skep/v1/services/{id}/pause", kind: write, handle: s.pauseService},
		{method: http.MethodPost, pattern: "/skep/v1/services/{id}/resume", kind: write, handle: s.resumeService},
		{method: http.MethodPost, pattern: "/skep/v1/services/{id}/restart", kind: write, handle: s.restartService},
		{method: http.MethodGet, pattern: pathTaskContainer, kind: read, handle: s.tellContainer},
		{method: http.MethodGet, pattern: pathClusterNetworks, kind: read, handle: s.listClusterNetworks},
		{method: http.MethodGet, pattern: pathClusterNetwork, kind: read, handle: s.inspectClusterNetwork},
		{method: http.MethodPost, pattern: pathCreateNetwork, kind: write, handle: s.createClusterNetwork},
		{method: http.MethodDelete, pattern: pathClusterNetwork, kind: write, handle: s.removeClusterNetwork},
		{method: http.MethodPost, pattern: pathPruneNetworks, kind: write, handle: s.pruneClusterNetworks},

		{method: http.MethodGet, pattern: "/containers/json", kind: local, handle: s.listContainers},
		{method: http.MethodPost, pattern: "/containers/create", kind: local, handle: s.createContainer},
		{method: http.MethodGet, pattern: "/containers/{id}/json", kind: local, handle: s.askContainer},
		{method: http.MethodGet, pattern: "/containers/{id}/logs", kind: local, handle: s.askContainer},
		{method: http.MethodGet, pattern: "/containers/{id}/top", kind: local, handle: s.askContainer},
		{method: http.MethodGet, pattern: "/containers/{id}/stats", kind: local, handle: s.askContainer},
		{method: http.MethodPost, pattern: "/containers/{id}/exec", kind: local, handle: s.createExec, told: true},
		{method: http.MethodPost, pattern: "/exec/{id}/start", kind: local, handle: s.startExec},
		{method: http.MethodPost, pattern: "/exec/{id}/resize", kind: local, handle: s.askExec},
		{method: http.MethodGet, pattern: "/exec/{id}/json", kind: local, handle: s.inspectExec},
		{method: http.MethodGet, pattern: "/networks", kind: local, handle: s.listNetworks},
		{method: http.MethodGet, pattern: "/networks/{id}", kind: local, handle: s.inspectNetwork},
		{method: http.MethodPost, pattern: "/networks/create", kind: local, handle: s.createNetwork},
		{method: http.MethodDelete, pattern: "/networks/{id}", kind: local, handle: s.removeNetwork},
		{method: http.MethodPost, pattern: "/networks/prune", kind: local, handle: s.pruneNetworks},
		{method: http.MethodPost, pattern: "/networks/{id}/connect", kind: local, handle: s.connectContainer},
		{method: http.MethodPost, pattern: "/networks/{id}/disconnect", kind: local, handle: s.disconnectContainer},

		{method: http.MethodPost, pattern: "/swarm/init", kind: local, handle: s.initSwarm, told: true},
		{method: http.MethodPost, pattern: "/swarm/join", kind: local, handle: s.joinSwarm, told: true},
		{method: http.MethodPost, pattern: "/swarm/leave", kind: local, handle: s.leaveSwarm, told: true},
		{method: http.MethodPost, pattern: "/swarm/unlock", kind: local, handle: s.unlockSwarm, told: true},
		{method: http.MethodGet, pattern: "/swarm", kind: read, handle: s.inspectSwarm, told: true},
		{method: http.MethodPost, pattern: "/swarm/update", kind: write, handle: s.updateSwarm},
		{method: http.MethodGet, pattern: "/swarm/unlockkey", kind: read, handle: s.showUnlockKey, told: true},

		{method: http.MethodGet, pattern: "/nodes", kind: readLeader, handle: s.listNodes},
		{method: http.MethodGet, pattern: "/nodes/{id}", kind: readLeader, handle: s.inspectNode},
		{method: http.MethodPost, pattern: "/nodes/{id}/update", kind: write, handle: s.updateNode},
		{method: http.MethodDelete, pattern: "/nodes/{id}", kind: write, handle: s.removeNode},

		{method: http.MethodGet, pattern: "/services", kind: read, handle: s.listServices},
		{method: http.MethodPost, pattern: "/services/create", kind: write, handle: s.createService},
		{method: http.MethodGet, pattern: "/services/{id}", kind: read, handle: s.inspectService},
		{method: http.MethodPost, pattern: "/services/{id}/update", kind: write, handle: s.updateService},
		{method: http.MethodDelete, pattern: "/services/{id}", kind: write, handle: s.removeService},
		{method: http.MethodGet, pattern: "/services/{id}/logs", kind: readLeader, handle: s.serviceLogs, anyManager: true},

		{method: http.MethodGet, pattern: "/tasks", kind: read, handle: s.listTasks},
		{method: http.MethodGet, pattern: "/tasks/{id}", kind: read, handle: s.inspectTask},
		{method: http.MethodGet, pattern: "/tasks/{id}/logs", kind: readLeader, handle: s.taskLogs, anyManager: true},

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
}

// swarmPaths are the first segments of paths that are never passed on to the engine: it
// may be in a swarm of its own, which must not be taken for this cluster.
var swarmPaths = map[string]bool{
	"_ping": true, "version": true, "info": true, "events": true, "distribution": true, "skep": true, "metrics": true, "console": true,
	"swarm": true, "nodes": true, "services": true, "tasks": true, "secrets": true, "configs": true,
}

// firstPart is the first segment of a path.
func firstPart(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}

// callKey is the context key of the call that a mux dispatches.
type callKey struct{}

// dispatch finds the route of a request and has next serve it, also when there is none.
func (s *Server) dispatch(next func(http.ResponseWriter, *http.Request, call)) http.Handler {
	mux := http.NewServeMux()
	serve := func(route *route) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(callKey{}).(call)
			if route != nil && r.Method == route.method { // A pattern with GET has HEAD, too.
				c.route, c.vars = route, r.PathValue
			}
			next(w, c.http, c)
		}
	}
	mux.HandleFunc("/", serve(nil))
	for i := range s.routes {
		mux.HandleFunc(s.routes[i].method+" "+s.routes[i].pattern, serve(&s.routes[i]))
	}
	return mux
}

// forMux is what a mux is asked about a request whose path, without the version, is
// given; nil when the mux would redirect it, since the path isn't clean.
func forMux(r *http.Request, path string) *http.Request {
	ask := &http.Request{Method: r.Method, URL: oneName(path)}
	if escaped := ask.URL.EscapedPath(); escaped == "" || pathpkg.Clean(escaped) != escaped && pathpkg.Clean(escaped)+"/" != escaped {
		return nil
	}
	return ask
}

// oneName is the URL of a path in which the name of an image, which may have slashes,
// is one segment: /distribution/{name}/json and /images/{name}/push.
func oneName(path string) *url.URL {
	u := &url.URL{Path: path}
	first := firstPart(path)
	if first != "distribution" && first != "images" {
		return u
	}
	rest := path[min(len(first)+2, len(path)):]
	if end := strings.LastIndexByte(rest, '/'); end > 0 {
		u.RawPath = "/" + first + "/" + url.PathEscape(rest[:end]) + "/" + url.PathEscape(rest[end+1:])
	}
	return u
}

// parseQuery reads the query strictly.
func parseQuery(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(cluster.ErrInvalid, "invalid query: %v", err)
	}
	return query, nil
}
