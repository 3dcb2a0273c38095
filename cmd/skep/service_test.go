package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"skep/cluster"
)

// kept are the revisions that the fake node tells of service web.
const kept = `[{"Number":3,"CreatedAt":"2026-01-01T12:00:30Z","Image":"app:3","Current":true},
{"Number":2,"CreatedAt":"2026-01-01T12:00:20Z","Image":"app:2","Previous":true},
{"Number":1,"CreatedAt":"2026-01-01T12:00:10Z","Image":"app:1","Labels":{"tier":"one"}}]`

func webNode(t *testing.T) *fakeNode {
	n := newFakeNode(t)
	n.answer("GET /skep/v1/services/web/revisions", kept)
	n.answer("GET /services/web", `{"ID":"web1","Version":{"Index":41},"Spec":{"Name":"web","Mode":{"Replicated":{"Replicas":0}}},
		"UpdateStatus":{"State":"rollback_completed","Message":"rollback completed"}}`)
	n.answer("POST /skep/v1/services/web1/rollback", `{"Warnings":null}`)
	n.answer("POST /services/web1/update", `{"Warnings":null}`)
	n.answer("GET /tasks", `[]`)
	return n
}

func TestServiceHistory(t *testing.T) {
	node := webNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	r := skep(t, env, "service", "history", "web")
	if r.status != 0 {
		t.Fatalf("status %d: %s", r.status, r.stderr)
	}
	for _, line := range []string{
		"REVISION CREATED IMAGE NOTE",
		"3 2026-01-01T12:00:30Z app:3 current",
		"2 2026-01-01T12:00:20Z app:2 previous",
		"1 2026-01-01T12:00:10Z app:1",
	} {
		if !hasLine(r.stdout, line) {
			t.Errorf("no line %q in\n%s", line, r.stdout)
		}
	}
	var revisions []cluster.KeptRevision
	if r := skep(t, env, "service", "history", "--json", "web"); json.Unmarshal([]byte(r.stdout), &revisions) != nil || revisions[2].Labels["tier"] != "one" {
		t.Errorf("%+v", r)
	}
	if r := skep(t, env, "service", "history", "none"); r.status != 1 || !strings.Contains(r.stderr, "page not found") {
		t.Errorf("a service that isn't there: %+v", r)
	}
	if r := skep(t, env, "service", "history"); r.status != 1 || !strings.Contains(r.stderr, "requires 1 argument") {
		t.Errorf("without a service: %+v", r)
	}
}

func TestServiceRollback_ToARevision(t *testing.T) {
	node := webNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	r := skep(t, env, "service", "rollback", "--detach", "--to", "1", "web")
	if r.status != 0 || r.stdout != "web\n" {
		t.Fatalf("%+v", r)
	}
	asked := node.asked("/skep/v1/services/web1/rollback")
	if len(asked) != 1 || asked[0].Method != http.MethodPost || asked[0].URL.RawQuery != "version=41&to=1" {
		t.Fatalf("asked %+v", asked)
	}
	if n := len(node.asked("/tasks")); n != 0 {
		t.Errorf("--detach looked at tasks %d times", n)
	}
	if r := skep(t, env, "service", "rollback", "--quiet", "--to", "1", "web"); r.status != 0 || len(node.asked("/tasks")) == 0 {
		t.Errorf("without --detach it doesn't wait: %+v", r)
	}
	if n := len(node.asked("/update")); n != 0 {
		t.Errorf("docker's own rollback was asked for %d times", n)
	}
}

func TestServiceRollback_WithoutToIsDockers(t *testing.T) {
	node := webNode(t)
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "service", "rollback", "--detach", "web")
	if r.status != 0 || r.stdout != "web\n" {
		t.Fatalf("%+v", r)
	}
	asked := node.asked("/services/web1/update")
	if len(asked) != 1 || !strings.Contains(asked[0].URL.RawQuery, "rollback=previous") {
		t.Fatalf("asked %+v", asked)
	}
}

func TestServiceRestart(t *testing.T) {
	node := webNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	node.answer("POST /skep/v1/services/web/restart", `{}`)
	node.answer("GET /services/web", `{"ID":"web1","Version":{"Index":41},"Spec":{"Name":"web","Mode":{"Replicated":{"Replicas":0}},"UpdateConfig":{"Monitor":1000000}},
		"UpdateStatus":{"State":"completed","Message":"update completed"}}`)
	if r := skep(t, env, "service", "restart", "--detach", "--now", "web"); r.status != 0 || r.stdout != "web\n" {
		t.Fatalf("%+v", r)
	}
	asked := node.asked("/skep/v1/services/web/restart")
	if len(asked) != 1 || asked[0].URL.RawQuery != "now=1" || len(node.asked("/services/web")) != 0 {
		t.Fatalf("asked %+v", asked)
	}
	if r := skep(t, env, "service", "restart", "--quiet", "web", "web"); r.status != 0 || r.stdout != "web\nweb\n" || len(node.asked("/services/web")) < 2 {
		t.Errorf("without --detach it doesn't wait: %+v", r)
	}
	if asked = node.asked("/skep/v1/services/web/restart"); len(asked) != 3 || asked[2].URL.RawQuery != "" {
		t.Errorf("asked %+v", asked)
	}
	if r := skep(t, env, "service", "restart", "none", "web"); r.status != 1 || !strings.Contains(r.stderr, "restart none: ") {
		t.Errorf("%+v", r)
	}
}
