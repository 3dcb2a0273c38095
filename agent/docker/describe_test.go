package docker

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
)

func TestDescribe_TellsWhatPlacementAsksFor(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.41")
		w.Header().Set("Content-Type", "application/json")
		answer := "{}"
		switch {
		case strings.HasSuffix(r.URL.Path, "/info"):
			answer = `{"Name":"host1","NCPU":2,"MemTotal":1024,"OSType":"linux","Architecture":"x86_64","Labels":["disk=ssd"],
				"Plugins":{"Volume":["local"],"Network":["bridge"],"Log":["json-file","syslog"]},
				"GenericResources":[{"NamedResourceSpec":{"Kind":"gpu","Value":"uuid1"}},{"DiscreteResourceSpec":{"Kind":"ssd","Value":3}}]}`
		case strings.HasSuffix(r.URL.Path, "/plugins"):
			answer = `[{"Name":"loki:latest","Enabled":true,"Config":{"Interface":{"Types":["docker.logdriver/1.0"]}}},
				{"Name":"off:latest","Enabled":false,"Config":{"Interface":{"Types":["docker.volumedriver/1.0"]}}}]`
		}
		_, _ = w.Write([]byte(answer))
	}))
	defer engine.Close()
	d, err := New(Config{Host: "tcp://" + engine.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := d.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []swarm.GenericResource{
		{NamedResourceSpec: &swarm.NamedGenericResource{Kind: "gpu", Value: "uuid1"}},
		{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: "ssd", Value: 3}},
	}
	if diff := cmp.Diff(want, got.Resources.GenericResources); diff != "" {
		t.Error(diff)
	}
	for _, p := range []swarm.PluginDescription{{Type: "Log", Name: "syslog"}, {Type: "Log", Name: "loki:latest"}, {Type: "Volume", Name: "local"}} {
		if !slices.Contains(got.Engine.Plugins, p) {
			t.Errorf("%+v isn't among %+v", p, got.Engine.Plugins)
		}
	}
	if slices.ContainsFunc(got.Engine.Plugins, func(p swarm.PluginDescription) bool { return p.Name == "off:latest" }) {
		t.Error("a plugin that is switched off is told of")
	}
}
