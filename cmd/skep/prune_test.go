package main

import (
	"strings"
	"testing"
)

const prunes = `{"Nodes":[{"ID":"n7id","Hostname":"n7","Addr":"10.0.0.7","DownSince":"2026-01-01T12:00:00Z","Message":"gone"}],
	"Kept":[{"ID":"n8id","Hostname":"n8","Addr":"10.0.0.8","DownSince":"2026-01-01T13:00:00Z","Message":"gone","Kept":"it is a manager"}]}`

func TestNodePrune(t *testing.T) {
	node := newFakeNode(t)
	node.answer("POST /skep/v1/nodes/prune", prunes)
	env := []string{"SKEP_HOST=" + node.url}
	queries := func() (all []string) {
		for _, r := range node.asked("/skep/v1/nodes/prune") {
			all = append(all, r.URL.RawQuery)
		}
		return all
	}
	r := skep(t, env, "node", "prune", "--dry-run", "--until", "90m")
	for _, line := range []string{
		"ID HOSTNAME ADDRESS DOWN SINCE NOTE",
		"n7id n7 10.0.0.7 2026-01-01T12:00:00Z gone",
		"n8id n8 10.0.0.8 2026-01-01T13:00:00Z stays: it is a manager",
		"1 node would be removed.",
	} {
		if !hasLine(r.stdout, line) {
			t.Errorf("no line %q in\n%s", line, r.stdout)
		}
	}
	// Nobody says yes.
	if r := skep(t, env, "node", "prune"); r.status != 1 || !strings.Contains(r.stdout, "remove 1 node.") || !strings.Contains(r.stderr, "cancelled") {
		t.Errorf("without a yes: %+v", r)
	}
	for _, query := range queries() {
		if !strings.Contains(query, "dry-run=1") {
			t.Errorf("asked %q before anybody said yes", query)
		}
	}
	node.answer("POST /skep/v1/nodes/prune", `{"Nodes":[{"ID":"n7id","Hostname":"n7"}],"Left":1}`, `{"Nodes":[{"ID":"n9id","Hostname":"n9"}]}`)
	if r := skep(t, env, "node", "prune", "--force"); r.status != 0 || r.stdout != "n7id\tn7\nn9id\tn9\n2 nodes removed.\n" {
		t.Errorf("with --force: %+v", r)
	}
	if all := queries(); all[0] != "dry-run=1&until=1h30m0s" || all[len(all)-1] != "until=24h0m0s" {
		t.Errorf("asked %q", all)
	}
	node.answer("POST /skep/v1/nodes/prune", `{"Nodes":[],"Kept":[]}`)
	if r := skep(t, env, "node", "prune"); r.status != 0 || r.stdout != "No node to remove.\n" {
		t.Errorf("nothing to remove: %+v", r)
	}
	if r := skep(t, env, "node", "prune", "--until", "-1s"); r.status != 1 || r.stderr == "" {
		t.Errorf("a negative span: %+v", r)
	}
	node.answer("POST /skep/v1/nodes/prune", `{"message":"The swarm does not have a leader."}`)
	if r := skep(t, env, "node", "prune", "--force"); r.status != 1 || !strings.Contains(r.stderr, "does not have a leader") {
		t.Errorf("without a leader: %+v", r)
	}
}
