package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Which route a request comes to, by what is answered: our own, "page not found" for what
// could be ours and isn't, or the engine.
func TestRoutes_WhoAnswers(t *testing.T) {
	b, e := newEngineBench(t)
	base := b.listen()
	for _, c := range []struct {
		ask    string
		status int
		says   string // what is in the answer; "engine" for the engine's
	}{
		{"GET /services", 200, "["},
		{"GET /v1.41/services", 200, "["},
		{"GET /%73ervices", 200, "["},
		{"GET /services/", 404, "page not found"},
		{"HEAD /services", 404, ""},
		{"PUT /services", 404, "page not found"},
		{"POST /services/a", 404, "page not found"},
		{"GET /services/a", 404, "service a not found"},
		{"GET /services/create", 404, "service create not found"},
		{"GET /services/a/", 404, "page not found"},
		{"GET /services/a/b", 404, "page not found"},
		{"GET /services/a%2Fb", 404, "page not found"},
		{"GET /services/a%252Fb", 404, "service a%2Fb not found"},
		{"GET /services/%20", 404, "service   not found"},
		{"GET /services/a%2Flogs?stdout=1", 404, "service a not found"},
		{"GET /v1.41/services/a/logs?stdout=1", 404, "service a not found"},
		{"DELETE /services/a", 404, "service a not found"},
		{"GET /skep/v1/services/a/revisions", 404, "service a not found"},
		{"GET /skep/v2/services", 404, "page not found"},
		{"GET /swarm/nothing", 404, "page not found"},
		{"OPTIONS /services", 404, "page not found"},
		{"GET /distribution/json", 404, "page not found"},
		{"GET /distribution/a/b", 404, "page not found"},
		{"GET /distribution/a/json", 403, "denied"},
		{"GET /distribution/localhost:5000/a/b/json", 403, "denied"},
		{"GET /distribution/localhost:5000%2Fa%2Fb/json", 403, "denied"},
		{"POST /distribution/a/json", 404, "page not found"},

		{"GET /", 0, "engine"},
		{"GET /v1.41", 0, "engine"},
		{"GET /v1.41/", 0, "engine"},
		{"OPTIONS *", 0, ""},
		{"GET /networks/a", 0, "engine"},
		{"HEAD /networks", 0, "engine"},
		{"HEAD /networks/a", 0, "engine"},
		{"DELETE /networks/a", 0, "engine"},
		{"GET /networks/a/", 0, "engine"},
		{"GET /networks/a/b", 0, "engine"},
		{"GET /containers//web/json", 0, "engine"},
		{"GET //containers/json", 0, "engine"},
		{"GET /containers/json/", 0, "engine"},
		{"GET /images/a/b/json", 0, "engine"},
		{"GET /servicesx", 0, "engine"},
		{"GET /v1.41x/services", 0, "engine"},
	} {
		before := len(e.requests())
		method, path, _ := strings.Cut(c.ask, " ")
		got := exchange(t, base, method, path)
		asked := slices.DeleteFunc(e.requests()[before:], func(ask string) bool { return ask == "GET /version" })
		byEngine := len(asked) > 0
		switch {
		case c.says == "engine" && !byEngine:
			t.Errorf("%s: %d %s: not the engine's answer", c.ask, got.status, got.body)
		case c.status == http.StatusNotFound && byEngine:
			t.Errorf("%s: the engine was asked %q", c.ask, asked)
		case c.status != 0 && (got.status != c.status || !strings.Contains(got.body, c.says)):
			t.Errorf("%s: %d %s; want %d %s", c.ask, got.status, got.body, c.status, c.says)
		}
	}
}
