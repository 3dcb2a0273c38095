package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func TestServicePause(t *testing.T) {
	node := webNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	for _, verb := range []string{"pause", "resume"} {
		path := "/skep/v1/services/web/" + verb
		node.answer("POST "+path, `{}`)
		args := []string{"service", verb, "web"}
		if verb == "resume" {
			args = append(args, "--detach")
		}
		r := skep(t, env, args...)
		if asked := node.asked(path); r.status != 0 || r.stdout != "web\n" || len(asked) != 1 || asked[0].Method != http.MethodPost {
			t.Errorf("%s: %+v", verb, r)
		}
		if r := skep(t, env, "service", verb, "none"); r.status != 1 {
			t.Errorf("%s of none: %+v", verb, r)
		}
	}
	if n := len(node.asked("/tasks")); n != 0 {
		t.Errorf("looked at tasks %d times", n)
	}
	// What is paused again while somebody waits is told of.
	node.answer("GET /services/web", `{"ID":"web1","Version":{"Index":41},"Spec":{"Name":"web","Mode":{"Replicated":{"Replicas":1}}},"UpdateStatus":{"State":"paused","Message":"update paused by hand"}}`)
	if r := skep(t, env, "service", "resume", "web"); r.status != 1 || !strings.Contains(r.stderr, "service update paused: update paused by hand") {
		t.Errorf("%+v", r)
	}
}

// The flag of docker's commands is a label.
func TestService_PauseAfter(t *testing.T) {
	const label = "skep.update.pause-after"
	node := newFakeNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	node.answer("POST /services/create", `{"ID":"web1"}`)
	node.answer("POST /services/web1/update", `{}`)
	node.answer("GET /services/web", `{"ID":"web1","Version":{"Index":41},"Spec":{"Name":"web","Labels":{"skep.update.pause-after":"9"},"TaskTemplate":{"ContainerSpec":{"Image":"web:1"}},"Mode":{"Replicated":{"Replicas":0}}}}`)
	for _, c := range []struct {
		verb, path, n, want string
	}{
		{"create", "/services/create", "2", "2"},
		{"create", "/services/create", "0", ""},
		{"update", "/services/web1/update", "1", "1"},
		{"update", "/services/web1/update", "0", ""},
	} {
		args := []string{"service", c.verb, "--detach", "--no-resolve-image", "--pause-after", c.n, "web"}
		if r := skep(t, env, args...); r.status != 0 {
			t.Errorf("%v: %+v", args, r)
			continue
		}
		var spec swarm.ServiceSpec
		if json.Unmarshal([]byte(node.last()), &spec) != nil || len(node.asked(c.path)) == 0 || spec.Labels[label] != c.want {
			t.Errorf("%v sends %+v", args, spec.Labels)
		}
	}
	if r := skep(t, env, "service", "update", "--pause-after", "some", "web"); r.status == 0 || !strings.Contains(r.stderr, `"some" is no number of tasks`) {
		t.Errorf("%+v", r)
	}
}
