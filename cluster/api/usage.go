package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// usageTimeout is how long all nodes together may take to say what their tasks use.
	usageTimeout = 20 * time.Second
	// usageParallel is how many nodes are asked at a time, for each client.
	usageParallel = 32
	// maxUsageAnswer bounds what is read of a node's answer: a quarter of an hour of a thousand tasks.
	maxUsageAnswer = 32 << 20
)

// showUsage tells what tasks use that run: of a service, on a node, or all. Their agents are asked. Any
// manager answers, from its own copy of the database: it says which tasks there are.
func (s *Server) showUsage(ctx context.Context, r *request) (response, error) {
	manager := s.Node.Manager()
	if manager == nil {
		return response{}, s.notManager()
	}
	view := manager.Store().View()
	serviceID, onNode := "", ""
	if ref := r.query.Get("service"); ref != "" {
		service, err := findService(view, ref)
		if err != nil {
			return response{}, err
		}
		serviceID = service.ID
	}
	if ref := r.query.Get("node"); ref != "" {
		node, err := findNode(view, ref)
		if err != nil {
			return response{}, err
		}
		onNode = node.ID
	}
	if r.flag("history") && serviceID+onNode == "" {
		return response{}, fail(cluster.ErrInvalid, "history is told of one service or one node: name it")
	}
	tasks := view.Tasks()
	if serviceID != "" {
		tasks = view.TasksOfService(serviceID)
	}
	byNode := map[string][]*cluster.TaskUsage{}
	all := []*cluster.TaskUsage{}
	for task := range tasks {
		if task.Status.State != cluster.StateRunning || task.Gone() || onNode != "" && task.NodeID != onNode {
			continue
		}
		told := &cluster.TaskUsage{TaskID: task.ID, Name: taskName(view, task), ServiceID: task.ServiceID, NodeID: task.NodeID}
		if service := view.Service(task.ServiceID); service != nil {
			told.Service = service.Spec.Name
		}
		if node := view.Node(task.NodeID); node != nil {
			told.Hostname, told.NodeMemory = node.Description.Hostname, uint64(max(node.Description.Resources.MemoryBytes, 0))
		}
		byNode[task.NodeID], all = append(byNode[task.NodeID], told), append(all, told)
	}
	s.askUsage(ctx, byNode, serviceID, r.flag("history"))
	slices.SortFunc(all, func(a, b *cluster.TaskUsage) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Name, b.Name))
	})
	return response{list: &listing{objects: func(yield func(any, error) bool) {
		for _, told := range all {
			if !yield(told, nil) {
				return
			}
		}
	}}}, nil
}

// askUsage asks the nodes, and fills in what they say, or why they don't.
func (s *Server) askUsage(ctx context.Context, byNode map[string][]*cluster.TaskUsage, serviceID string, history bool) {
	ctx, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	var asking sync.WaitGroup
	places := make(chan struct{}, usageParallel)
	for nodeID, tasks := range byNode {
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			said, err := s.usageOn(ctx, nodeID, serviceID, history)
			for _, told := range tasks {
				switch of, ok := said[told.TaskID]; {
				case err != nil:
					told.Err = err.Error()
				case !ok:
					told.Err = "its node doesn't know it as running"
				default:
					told.Usage, told.Err = of.Usage, of.Err
				}
			}
		})
	}
	asking.Wait()
}

// usageOn asks one node.
func (s *Server) usageOn(ctx context.Context, nodeID, serviceID string, history bool) (map[string]cluster.TaskUsage, error) {
	query := url.Values{}
	if serviceID != "" {
		query.Set("service", serviceID)
	}
	if history {
		query.Set("history", "1")
	}
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+nodeID+cluster.UsagePath+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", nodeID, err)
	}
	answer, err := s.engines.RoundTrip(ask)
	if err != nil {
		return nil, engineError(nodeID, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, refusalOf(answer, "node "+nodeID)
	}
	var said []cluster.TaskUsage
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxUsageAnswer)).Decode(&said); err != nil {
		return nil, fail(cluster.ErrUnavailable, "read the answer of node %s: %v", nodeID, err)
	}
	byTask := make(map[string]cluster.TaskUsage, len(said))
	for _, of := range said {
		byTask[of.TaskID] = of
	}
	return byTask, nil
}
