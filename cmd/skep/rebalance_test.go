package main

import (
	"fmt"
	"strings"
	"testing"
)

func rebalanced(state, message string, tasks ...string) (service, list string) {
	service = fmt.Sprintf(`{"ID":"web1","Version":{"Index":41},"Spec":{"Name":"web","Mode":{"Replicated":{"Replicas":2}}},
		"UpdateStatus":{"State":%q,"StartedAt":"2026-01-01T12:00:00Z","Message":%q}}`, state, message)
	return service, "[" + strings.Join(tasks, ",") + "]"
}

func TestServiceRebalance(t *testing.T) {
	for _, c := range []struct {
		name, state, message string
		flags                []string
		status               int
		stdout, stderr       string
		looks                bool
	}{
		{"shows how many were moved", "completed", "rebalance completed", nil, 0, "web\nweb: 1 task moved\nweb: rebalance completed\n", "", true},
		{"quiet", "completed", "rebalance completed", []string{"--quiet"}, 0, "web\n", "", true},
		{"detached", "updating", "rebalance in progress", []string{"--detach"}, 0, "web\n", "", false},
		{"paused", "paused", "rebalance paused due to failure", []string{"-q"}, 1, "web\n", "rebalance paused due to failure", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := newFakeNode(t)
			service, tasks := rebalanced(c.state, c.message,
				`{"Slot":1,"CreatedAt":"2026-01-01T11:00:00Z","Status":{"State":"running"}}`,
				`{"Slot":2,"CreatedAt":"2026-01-01T12:00:01Z","Status":{"State":"running"}}`)
			node.answer("POST /skep/v1/services/web/rebalance", `{}`)
			node.answer("GET /services/web", service)
			node.answer("GET /tasks", tasks)
			r := skep(t, []string{"SKEP_HOST=" + node.url}, append([]string{"service", "rebalance", "web"}, c.flags...)...)
			if r.status != c.status || r.stdout != c.stdout || !strings.Contains(r.stderr, c.stderr) {
				t.Errorf("%+v", r)
			}
			if looked := len(node.asked("/tasks")) > 0; looked != c.looks {
				t.Errorf("it looked at tasks: %v", looked)
			}
		})
	}
	node := newFakeNode(t)
	node.answer("POST /skep/v1/services/web/rebalance", `{}`)
	node.answer("GET /services/web", `{"ID":"web1","Spec":{"Name":"web"}}`)
	node.answer("GET /tasks", `[]`)
	if r := skep(t, []string{"SKEP_HOST=" + node.url}, "service", "rebalance", "web"); r.status != 1 || !strings.Contains(r.stderr, "updated, which ended its rebalance") {
		t.Errorf("a rebalance that was cancelled: %+v", r)
	}
	if r := skep(t, []string{"SKEP_HOST=" + node.url}, "service", "rebalance", "none"); r.status != 1 {
		t.Errorf("a service that isn't there: %+v", r)
	}
}
