package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
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
	answer, err := s.engine.open(ctx, "/v"+s.engine.negotiateVersion(ctx, r.version)+"/containers/json?"+query.Encode(), http.Header{})
	if err != nil {
		return response{}, err
	}
	return response{list: &listing{objects: func(yield func(any, error) bool) {
		defer answer.Body.Close()
		kept := 0
		for container, err := range elements(io.LimitReader(answer.Body, maxContainers)) {
			var of struct{ Labels map[string]string }
			if err == nil {
				err = json.Unmarshal(container, &of)
			}
			if err != nil {
				yield(nil, fail(cluster.ErrUnavailable, "read the engine's answer: %v", err))
				return
			}
			if _, task := of.Labels[taskLabel]; task != tasks {
				continue
			}
			if kept++; !yield(container, nil) || kept == limit {
				return
			}
		}
	}}}, nil
}

// elements reads a JSON array one by one.
func elements(from io.Reader) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		decoder := json.NewDecoder(from)
		start, err := decoder.Token()
		if err == nil && start == nil {
			return // null
		}
		if err == nil && start != json.Delim('[') {
			err = fmt.Errorf("it begins with %v", start)
		}
		for err == nil && decoder.More() {
			var element json.RawMessage
			if err = decoder.Decode(&element); err == nil && !yield(element, nil) {
				return
			}
		}
		if err == nil {
			_, err = decoder.Token() // the end of it
		}
		if err != nil {
			yield(nil, err)
		}
	}
}
