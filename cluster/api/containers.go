package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/docker/docker/api/types/filters"

	"skep/cluster"
)

// taskLabel is on the containers of tasks, without a value.
const taskLabel = "com.docker.swarm.task"

// maxContainers bounds what is read of the engine's list of containers.
const maxContainers = 256 << 20

// listContainers passes the engine's list on. The filter is-task is answered here: the engine
// knows its own swarm's tasks only, and ours are containers like any others to it.
func (s *Server) listContainers(ctx context.Context, r *request) (response, error) {
	args, err := filters.FromJSON(r.query.Get("filters"))
	if err != nil || !args.Contains("is-task") {
		return response{engine: true}, nil // what is wrong with it, the engine says
	}
	tasks, err := args.GetBoolOrDefault("is-task", false)
	if err != nil {
		return response{}, fail(cluster.ErrInvalid, "invalid filter 'is-task=%v'", args.Get("is-task"))
	}
	for _, value := range args.Get("is-task") {
		args.Del("is-task", value)
	}
	query := url.Values{}
	for name, values := range r.query {
		query[name] = values
	}
	limit := 0
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil {
			return response{engine: true}, nil
		}
	}
	query.Del("limit") // it counts what is left by the filters
	if limit > 0 {
		query.Set("all", "1") // as it means
	}
	encoded, err := filters.ToJSON(args)
	if err != nil {
		return response{}, err
	}
	query.Set("filters", encoded)
	answer, err := s.engine.open(ctx, "/v"+s.engine.suit(ctx, r.version)+"/containers/json?"+query.Encode(), http.Header{})
	if err != nil {
		return response{}, err
	}
	defer answer.Body.Close()
	var all []json.RawMessage
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxContainers)).Decode(&all); err != nil {
		return response{}, fail(cluster.ErrUnavailable, "read the engine's answer: %v", err)
	}
	kept := []json.RawMessage{}
	for _, container := range all {
		var of struct{ Labels map[string]string }
		if err := json.Unmarshal(container, &of); err != nil {
			return response{}, fail(cluster.ErrUnavailable, "read the engine's answer: %v", err)
		}
		if _, task := of.Labels[taskLabel]; task == tasks && (limit <= 0 || len(kept) < limit) {
			kept = append(kept, container)
		}
	}
	return response{body: kept}, nil
}
