package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"skep/cluster"
)

// kept are the revisions that the fake node tells of service web.
const kept = `[{"Number":3,"CreatedAt":"2026-01-01T12:00:30Z","Image":"app:3","Current":true,"By":"uid 0 on n1","Message":"it hung","TaskTemplate":{"ContainerSpec":{"Image":"app:3","Env":["A=1"]}}},
{"Number":2,"CreatedAt":"2026-01-01T12:00:20Z","Image":"app:2","Previous":true,"TaskTemplate":{"ContainerSpec":{"Image":"app:2"}}},
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
		"REVISION CREATED IMAGE NOTE BY MESSAGE",
		"3 2026-01-01T12:00:30Z app:3 current uid 0 on n1 it hung",
		"2 2026-01-01T12:00:20Z app:2 previous -",
		"1 2026-01-01T12:00:10Z app:1 - -",
	} {
		if !hasLine(r.stdout, line) {
			t.Errorf("no line %q in\n%s", line, r.stdout)
		}
	}
	var revisions []cluster.KeptRevision
	if r := skep(t, env, "service", "history", "--json", "web"); json.Unmarshal([]byte(r.stdout), &revisions) != nil || revisions[2].Labels["tier"] != "one" || revisions[0].Message != "it hung" {
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

func TestServiceDiff(t *testing.T) {
	node := webNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	for _, c := range []struct {
		args   []string
		status int
		stdout string
		stderr string
	}{
		{[]string{"web"}, 0, "~ image           app:2 -> app:3\n+ environment A   \"1\"\n", ""},
		{[]string{"web", "1"}, 0, "+ image           app:3\n+ environment A   \"1\"\n- label tier      one\n", ""},
		{[]string{"web", "3", "2"}, 0, "~ image           app:3 -> app:2\n- environment A   \"1\"\n", ""},
		{[]string{"web", "3", "3"}, 0, "Revisions 3 and 3 are the same.\n", ""},
		{[]string{"web", "7"}, 1, "", "revision 7 of service web isn't kept"},
		{[]string{"web", "one"}, 1, "", `revision "one" is no number`},
		{[]string{}, 1, "", "requires at least 1 and at most 3 arguments"},
	} {
		r := skep(t, env, append([]string{"service", "diff"}, c.args...)...)
		if r.status != c.status || r.stdout != c.stdout || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
	var found struct {
		From, To    uint64
		Differences []cluster.Difference
	}
	if r := skep(t, env, "service", "diff", "--json", "web"); json.Unmarshal([]byte(r.stdout), &found) != nil || found.From != 2 || found.To != 3 || len(found.Differences) != 2 {
		t.Errorf("%+v", r)
	}
}

// A message goes with docker's own commands, too.
func TestServiceWhy(t *testing.T) {
	node := newFakeNode(t)
	node.answer("GET /skep/v1/services/web/why", `{"Service":"web","ID":"web1","Mode":"replicated","Running":1,"Desired":3,"Waiting":[{"Tasks":2,"Text":"no suitable node"}],"Nodes":5,"Constraints":[{"Constraint":"node.role==manager","Nodes":4}]}`)
	env := []string{"SKEP_HOST=" + node.url}
	r := skep(t, env, "service", "why", "web")
	for _, line := range []string{"Service web (replicated): 1 of 3 tasks run.", "2 tasks: no suitable node", "4 excluded by node.role==manager"} {
		if r.status != 0 || !hasLine(r.stdout, line) {
			t.Errorf("no line %q in %+v", line, r)
		}
	}
	if r := skep(t, env, "service", "why", "--json", "web"); r.status != 0 || !strings.Contains(r.stdout, `"Desired": 3`) {
		t.Errorf("%+v", r)
	}
	if r := skep(t, env, "service", "why", "none"); r.status == 0 {
		t.Errorf("%+v", r)
	}
}

func TestService_Message(t *testing.T) {
	node := webNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	node.answer("POST /skep/v1/services/web/restart", `{}`)
	node.answer("GET /services/web", `{"ID":"web1","Version":{"Index":41},"Spec":{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"web:1"}},"Mode":{"Replicated":{"Replicas":0}}}}`)
	const text, sent = "100 % für uns", "100+%25+f%C3%BCr+uns"
	for path, args := range map[string][]string{
		"/services/create":              {"create", "--detach", "--no-resolve-image", "--cap-add", "SYS_TIME", "--message", text, "web:1"},
		"/services/web1/update":         {"update", "--detach", "--no-resolve-image", "--message", text, "--image", "web:2", "web"},
		"/skep/v1/services/web/restart": {"restart", "--detach", "--message", text, "web"},
	} {
		if r := skep(t, env, append([]string{"service"}, args...)...); r.status != 0 {
			t.Errorf("%v: %+v", args, r)
		}
		if asked := node.asked(path); len(asked) != 1 || asked[0].Header.Get(cluster.HeaderMessage) != sent {
			t.Errorf("%v: %+v", args, asked)
		}
	}
	for _, name := range []string{"update", "restart"} {
		if r := skep(t, env, "service", name, "--detach", "--message", "two\nlines", "web"); r.status == 0 || !strings.Contains(r.stderr, "more than one line") {
			t.Errorf("%+v", r)
		}
	}
	if r := skep(t, append(env, "DOCKER_CUSTOM_HEADERS=a=b"), "service", "update", "--detach", "--message", "x", "web"); r.status == 0 || !strings.Contains(r.stderr, "unset that") {
		t.Errorf("%+v", r)
	}
	if asked := node.asked("/services/web1/update"); len(asked) != 1 {
		t.Errorf("%d updates", len(asked))
	}
}
