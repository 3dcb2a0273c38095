package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	// nodeLabel has the node of a task's container; the agents' docker driver sets it.
	nodeLabel = "io.skep.node"
	// taskIDLabel and serviceNameLabel are Swarm's.
	taskIDLabel      = "com.docker.swarm.task.id"
	serviceNameLabel = "com.docker.swarm.service.name"
	// engineAnswer is how long a node's engine may take to begin its answer.
	engineAnswer = 30 * time.Second
	// maxCommand is how many bytes of a command's first word the log has.
	maxCommand = 64
)

// containerIDs are the beginnings of containers' IDs that are looked up in the database. Docker
// shows twelve digits; fewer may well be the beginning of another object's ID.
var containerIDs = regexp.MustCompile(`^[0-9a-f]{12,64}$`)

// execIDs are what engines name an exec by.
var execIDs = regexp.MustCompile(`^[0-9a-f]{64}$`)

// pathTaskContainer is the leader's route to what it knows of a container.
const pathTaskContainer = "/skep/v1/taskcontainers/{id}"

// taskContainer is the container of a task, as the leader tells of it too.
type taskContainer struct {
	ID, NodeID, TaskID, Service string
	// here is set when the local engine has it.
	here bool
}

// findTaskContainer finds a container of a task, here or on another node. It is nil when
// the reference is up to the local engine.
func (s *Server) findTaskContainer(ctx context.Context, r *request, ref string) (*taskContainer, error) {
	manager := s.Node.Manager()
	if manager == nil {
		return nil, nil
	}
	var here ownContainer
	if s.engine.get(ctx, "/v"+s.engine.negotiateVersion(ctx, r.version)+"/containers/"+url.PathEscape(ref)+"/json", nil, &here) == nil {
		labels := here.Config.Labels
		if manager.Store().View().Node(labels[nodeLabel]) == nil {
			return nil, nil // A user's own.
		}
		return &taskContainer{ID: here.ID, NodeID: labels[nodeLabel], TaskID: labels[taskIDLabel], Service: labels[serviceNameLabel], here: true}, nil
	}
	found, err := containerIn(manager.Store().View(), ref)
	if found == nil && err == nil {
		if leader := manager.LeaderID(); leader != "" && leader != manager.NodeID() {
			found, err = s.containerOfLeader(r, ref) // Its agent may have told of it just now.
		}
	}
	if found == nil || found.NodeID == manager.NodeID() { // The local engine should have had that.
		return nil, err
	}
	return found, nil
}

// containerIn finds a task's container in a view; nil when there is none.
func containerIn(view store.View, ref string) (*taskContainer, error) {
	task, err := taskOfContainer(view, ref)
	if task == nil {
		return nil, err
	}
	found := &taskContainer{ID: task.Status.ContainerID, NodeID: task.NodeID, TaskID: task.ID}
	if service := view.Service(task.ServiceID); service != nil {
		found.Service = service.Spec.Name
	}
	return found, nil
}

// containerOfLeader asks the leader for a container; nil when it knows none either, or doesn't say.
func (s *Server) containerOfLeader(r *request, ref string) (*taskContainer, error) {
	answer, err := s.askLeader(r, http.MethodGet, pathTaskContainer, ref, nil, nil)
	if err != nil {
		if statusOf(err) == http.StatusBadRequest {
			return nil, err // It is the beginning of several.
		}
		return nil, nil
	}
	found := new(taskContainer)
	if err := json.Unmarshal(answer, found); err != nil {
		return nil, fail(cluster.ErrUnavailable, "read the leader's answer: %v", err)
	}
	return found, nil
}

// tellContainer says what is known of a task's container.
func (s *Server) tellContainer(_ context.Context, r *request) (response, error) {
	found, err := containerIn(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	if found == nil {
		return response{}, fail(cluster.ErrNotFound, "No such container: %s", r.vars("id"))
	}
	return response{body: found}, nil
}

// taskOfContainer finds the task whose container has the ID, the beginning of it, or the name; nil
// when there is none.
func taskOfContainer(view store.View, ref string) (*cluster.Task, error) {
	ref = strings.TrimPrefix(ref, "/")
	for task := range view.TasksWithPrefix(lastPart(ref)) {
		if task.Status.ContainerID != "" && !task.Gone() && taskName(view, task) == ref {
			return task, nil
		}
	}
	if !containerIDs.MatchString(ref) {
		return nil, nil
	}
	var found *cluster.Task
	for task := range view.Tasks() {
		if !strings.HasPrefix(task.Status.ContainerID, ref) || task.Gone() {
			continue
		}
		if found != nil {
			return nil, fail(cluster.ErrInvalid, "Multiple IDs found with provided prefix: %s", ref)
		}
		found = task
	}
	return found, nil
}

// askContainer looks at a container: how it is, its log, its processes, its use of resources.
func (s *Server) askContainer(ctx context.Context, r *request) (response, error) {
	ref := r.vars("id")
	found, err := s.findTaskContainer(ctx, r, ref)
	if err != nil {
		return response{}, err
	}
	if found == nil || found.here {
		return response{engine: true}, nil
	}
	path := r.http.URL.Path
	return s.askEngine(r, found.NodeID, "/containers/"+found.ID+path[strings.LastIndexByte(path, '/'):]), nil
}

// createExec prepares a command that is to run in a container. If that is a task's, the ID that
// it gets has the node after a dot, so that any manager can go on with it.
func (s *Server) createExec(ctx context.Context, r *request) (response, error) {
	found, err := s.findTaskContainer(ctx, r, r.vars("id"))
	if err != nil {
		return response{}, err
	}
	if found == nil {
		return response{engine: true}, nil
	}
	if err := s.mayExec(); err != nil {
		return response{}, err
	}
	var asked struct {
		Cmd        []string
		Privileged bool
	}
	if err := json.Unmarshal(r.body, &asked); err != nil {
		return response{}, fail(cluster.ErrInvalid, "invalid JSON: %v", err)
	}
	if asked.Privileged && !cluster.AllowsHostOptions(s.clusterSpec()) {
		return response{}, fail(cluster.ErrDenied, "a privileged command in the container of a task has power over its node, and this cluster doesn't allow that: "+
			"allow it with `skep cluster update --allow-host-options`, or leave --privileged out")
	}
	var made struct{ Id string }
	if err := s.exchange(ctx, r, found.NodeID, found.here, "/containers/"+found.ID+"/exec", &made); err != nil {
		return response{}, err
	}
	noteOf(ctx).name(cluster.AuditedObject{Kind: "task", ID: found.TaskID, Name: found.Service})
	s.Log.Info("exec in a task's container", "by", cluster.Actor(ctx), "command", firstWord(asked.Cmd),
		"service", found.Service, "task", found.TaskID, "node", found.NodeID, "exec", made.Id[:min(len(made.Id), 12)])
	return response{status: http.StatusCreated, body: map[string]string{"Id": made.Id + "." + found.NodeID}}, nil
}

// firstWord is what may be told of a command: what follows may be a password.
func firstWord(command []string) string {
	if len(command) == 0 {
		return ""
	}
	words := strings.Fields(command[0])
	if len(words) == 0 {
		return ""
	}
	return strings.ToValidUTF8(words[0][:min(len(words[0]), maxCommand)], "")
}

// clusterSpec is as far as this manager knows; of a worker it is empty.
func (s *Server) clusterSpec() (spec swarm.Spec) {
	if manager := s.Node.Manager(); manager != nil {
		if record := manager.Store().View().Cluster(); record != nil {
			return record.Spec
		}
	}
	return spec
}

// mayExec refuses exec in containers of tasks where the cluster forbids it.
func (s *Server) mayExec() error {
	if forbidden, _ := cluster.LabelForbidExec.Of(s.clusterSpec().Labels); forbidden {
		return fail(cluster.ErrDenied, "this cluster forbids exec in containers of tasks: `skep cluster update --forbid-exec=false` allows it again")
	}
	return nil
}

// startExec starts what createExec prepared, and takes the client's connection over.
func (s *Server) startExec(ctx context.Context, r *request) (response, error) {
	if strings.Contains(r.vars("id"), ".") {
		if err := s.mayExec(); err != nil {
			return response{}, err
		}
	}
	return s.askExec(ctx, r)
}

// askExec passes on what is asked of an exec.
func (s *Server) askExec(_ context.Context, r *request) (response, error) {
	exec, err := s.findExec(r)
	if err != nil {
		return response{}, err
	}
	path := r.http.URL.Path
	path = "/exec/" + exec.id + path[strings.LastIndexByte(path, '/'):]
	switch {
	case exec.nodeID == "":
		return response{engine: true}, nil
	case exec.here:
		return response{engine: true, path: "/v" + r.version + path}, nil
	}
	return s.askEngine(r, exec.nodeID, path), nil
}

// inspectExec tells how an exec is, by the ID that it was asked for.
func (s *Server) inspectExec(ctx context.Context, r *request) (response, error) {
	exec, err := s.findExec(r)
	if err != nil {
		return response{}, err
	}
	if exec.nodeID == "" {
		return response{engine: true}, nil
	}
	answer := object{}
	if err := s.exchange(ctx, r, exec.nodeID, exec.here, "/exec/"+exec.id+"/json", &answer); err != nil {
		return response{}, err
	}
	answer.set("ID", r.vars("id"))
	return response{body: answer}, nil
}

// madeExec is an exec that createExec made; without a node it is the local engine's own affair.
type madeExec struct {
	id, nodeID string
	here       bool
}

// findExec takes the ID of an exec apart.
func (s *Server) findExec(r *request) (madeExec, error) {
	id, nodeID, made := strings.Cut(r.vars("id"), ".")
	exec := madeExec{id, nodeID, made && nodeID == s.Node.Info().NodeID}
	if !made || exec.here && execIDs.MatchString(id) {
		return exec, nil
	}
	manager := s.Node.Manager()
	if manager == nil {
		return exec, s.notManager()
	}
	if !execIDs.MatchString(id) || manager.Store().View().Node(nodeID) == nil {
		return exec, fail(cluster.ErrNotFound, "No such exec instance: %s", r.vars("id"))
	}
	return exec, nil
}

// askEngine passes a request on to the engine of another node, to another path.
func (s *Server) askEngine(from *request, nodeID, path string) response {
	return response{stream: func(ctx context.Context, w http.ResponseWriter) {
		r := from.http.Clone(ctx)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(from.body)), int64(len(from.body))
		(&httputil.ReverseProxy{
			Rewrite: func(p *httputil.ProxyRequest) {
				p.Out.URL = &url.URL{Scheme: "http", Host: nodeID, Path: "/v" + from.version + path, RawQuery: p.In.URL.RawQuery}
				p.Out.Host = "docker"
				p.Out.Header.Del(registry.AuthHeader)
			},
			Transport:     s.engines,
			FlushInterval: -1,
			ErrorHandler:  func(w http.ResponseWriter, r *http.Request, err error) { s.writeError(w, r, engineError(nodeID, err)) },
			ErrorLog:      s.engine.reverse.ErrorLog,
		}).ServeHTTP(w, r)
	}}
}

// exchange asks an engine, here or of another node, something with a small answer.
func (s *Server) exchange(ctx context.Context, from *request, nodeID string, here bool, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, engineAnswer)
	defer cancel()
	transport, host, version := s.engines, nodeID, from.version
	if here {
		transport, host, version = s.engine.transport, s.engine.base.Host, s.engine.negotiateVersion(ctx, from.version)
	}
	request, err := http.NewRequestWithContext(ctx, from.http.Method, "http://"+host+"/v"+version+path, bytes.NewReader(from.body))
	if err != nil {
		return fail(cluster.ErrInvalid, "ask the engine of node %s: %v", nodeID, err)
	}
	if kind := from.http.Header.Get("Content-Type"); kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return engineError(nodeID, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusBadRequest {
		return refusalOf(answer, "the Docker Engine of node "+nodeID)
	}
	return decodeAnswer(answer, into)
}

// engineError says that a node's engine doesn't answer.
func engineError(nodeID string, err error) error {
	if statusOf(err) != http.StatusInternalServerError {
		return err
	}
	return fail(cluster.ErrUnavailable, "the engine of node %s doesn't answer: %v", nodeID, err)
}

// newEngines is the way to the engines of other nodes: hosts of URLs are nodes' IDs.
func (s *Server) newEngines() *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			nodeID, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			manager := s.Node.Manager()
			if manager == nil {
				return nil, s.notManager()
			}
			return manager.DialEngine(ctx, nodeID)
		},
		DisableKeepAlives:     true, // Agents answer one request on each.
		DisableCompression:    true,
		ResponseHeaderTimeout: engineAnswer,
	}
}
