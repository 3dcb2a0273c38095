package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/docker/api/types/versions"

	"skep/cluster"
)

// newer is something in a request that engines before an API version don't know. They ignore it, and
// a client that was told of our version counts on it: with VolumeOptions.Subpath ignored a
// container gets the whole volume.
type newer struct {
	since string // API version
	// query is a parameter, or field the way to a field of the body: names of fields, * for any
	// name, [] for any element of a list.
	query, field string
	// means tells whether a value asks for it; nil is given.
	means func(any) bool
}

// newerThings are those of the engine's routes that do something, by API version 1.51, from what
// came after 1.39; TestNewer_KnowsDockersDescriptions compares them with Docker's descriptions of each version.
// Left out is what only shapes what is shown, and what makes no difference when it is ignored:
// a terminal's first size, and mounts whose submounts older engines leave writable anyway.
var newerThings = map[string][]newer{
	"POST /containers/create": {
		{since: "1.40", field: "HostConfig/DeviceRequests"},
		{since: "1.40", field: "HostConfig/KernelMemoryTCP"},
		{since: "1.40", field: "HostConfig/Mounts/[]/BindOptions/NonRecursive"},
		{since: "1.41", query: "platform"},
		{since: "1.41", field: "HostConfig/CgroupnsMode"},
		{since: "1.42", field: "HostConfig/Mounts/[]/BindOptions/CreateMountpoint"},
		{since: "1.43", field: "HostConfig/Annotations"},
		{since: "1.44", field: "Healthcheck/StartInterval"},
		{since: "1.44", field: "HostConfig/Mounts/[]/BindOptions/ReadOnlyForceRecursive"},
		{since: "1.44", field: "NetworkingConfig/EndpointsConfig/*/MacAddress"},
		{since: "1.45", field: "HostConfig/Mounts/[]/VolumeOptions/Subpath"},
		{since: "1.46", field: "HostConfig/Mounts/[]/TmpfsOptions/Options"},
		{since: "1.46", field: "NetworkingConfig/EndpointsConfig/*/DriverOpts/com.docker.network.endpoint.sysctls"},
		{since: "1.48", field: "HostConfig/Mounts/[]/ImageOptions/Subpath"},
		{since: "1.48", field: "NetworkingConfig/EndpointsConfig/*/GwPriority"},
	},
	"POST /containers/{id}/update": {
		{since: "1.40", field: "DeviceRequests"},
		{since: "1.40", field: "KernelMemoryTCP"},
	},
	"POST /commit":                  {{since: "1.44", field: "Healthcheck/StartInterval"}},
	"POST /containers/{id}/restart": {{since: "1.42", query: "signal"}},
	"POST /containers/{id}/stop":    {{since: "1.42", query: "signal"}},
	"POST /networks/{id}/connect": {
		{since: "1.44", field: "EndpointConfig/MacAddress"},
		{since: "1.46", field: "EndpointConfig/DriverOpts/com.docker.network.endpoint.sysctls"},
		{since: "1.48", field: "EndpointConfig/GwPriority"},
	},
	"POST /networks/create": {
		{since: "1.47", field: "EnableIPv4", means: func(value any) bool { return value == false }},
	},
	"POST /volumes/create": {{since: "1.42", field: "ClusterVolumeSpec"}},
	"POST /build":          {{since: "1.40", query: "outputs"}},
	"POST /build/prune": {
		{since: "1.48", query: "max-used-space"}, {since: "1.48", query: "min-free-space"}, {since: "1.48", query: "reserved-space"},
	},
	"POST /images/create":        {{since: "1.40", query: "changes"}},
	"POST /images/load":          {{since: "1.48", query: "platform"}},
	"POST /images/{name}/push":   {{since: "1.46", query: "platform"}},
	"GET /images/get":            {{since: "1.48", query: "platform"}},
	"GET /images/{name}/get":     {{since: "1.48", query: "platform"}},
	"GET /images/{name}/history": {{since: "1.48", query: "platform"}},
	"DELETE /images/{name...}":   {{since: "1.50", query: "platforms"}},
}

// newerRoutes finds the pattern of a request in newerThings.
var newerRoutes = func() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern := range newerThings {
		mux.Handle(pattern, http.NotFoundHandler()) // It is never asked to serve.
	}
	return mux
}()

// newerIn are the things that a request may have.
func newerIn(r *http.Request, path string) []newer {
	ask := forMux(r, path)
	if ask == nil {
		return nil
	}
	_, pattern := newerRoutes.Handler(ask)
	if !strings.HasPrefix(pattern, r.Method+" ") { // A pattern with GET has HEAD, too.
		return nil
	}
	return newerThings[pattern]
}

// refuseNewer refuses a request for the engine that has something which the client's version of the
// API has and the engine's hasn't.
func (s *Server) refuseNewer(ctx context.Context, w http.ResponseWriter, r *http.Request, c call) error {
	things := newerIn(r, c.path)
	if things == nil {
		return nil
	}
	_, engine := s.engine.versions(ctx)
	if engine == "" {
		return nil // it says itself that it is away
	}
	var unknown []newer
	fields := false
	for _, thing := range things {
		if versions.LessThan(engine, thing.since) && versions.GreaterThanOrEqualTo(c.version, thing.since) {
			unknown, fields = append(unknown, thing), fields || thing.field != ""
		}
	}
	var query url.Values
	var body any
	if len(unknown) > 0 {
		query = r.URL.Query()
	}
	if fields {
		data, err := s.readBody(w, r)
		if err != nil {
			return err
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
		// What isn't JSON is refused by the engine, which reads no more than the first value either.
		_ = json.NewDecoder(bytes.NewReader(data)).Decode(&body)
	}
	for _, thing := range unknown {
		name := thing.query
		asked := name != "" && query.Get(name) != ""
		if thing.field != "" {
			name = strings.ReplaceAll(strings.ReplaceAll(thing.field, "/[]", "[]"), "/", ".")
			asked = asks(body, strings.Split(thing.field, "/"), thing.means)
		}
		if asked {
			return fail(cluster.ErrInvalid, "%s needs an engine of API v%s or newer; the Docker Engine of this node has v%s and would ignore it", name, thing.since, engine)
		}
	}
	return nil
}

// asks tells whether a value that is read from JSON asks for what is at the end of the way.
func asks(value any, way []string, means func(any) bool) bool {
	if len(way) == 0 {
		if means == nil {
			means = given
		}
		return means(value)
	}
	switch value := value.(type) {
	case map[string]any:
		for name, inside := range value {
			// Names of fields are read in any case.
			if (way[0] == "*" || strings.EqualFold(name, way[0])) && asks(inside, way[1:], means) {
				return true
			}
		}
	case []any:
		for _, inside := range value {
			if way[0] == "[]" && asks(inside, way[1:], means) {
				return true
			}
		}
	}
	return false
}

// given tells whether a value isn't the one that stands for none.
func given(value any) bool {
	switch value := value.(type) {
	case bool:
		return value
	case string:
		return value != ""
	case float64:
		return value != 0
	case []any:
		return len(value) > 0
	case map[string]any:
		return len(value) > 0
	}
	return false
}
