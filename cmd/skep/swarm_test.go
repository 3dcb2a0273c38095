package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestSwarm_PrintsLinesThatWork(t *testing.T) {
	node := newFakeNode(t)
	node.answer("GET /info", `{"Swarm":{"NodeID":"n1","LocalNodeState":"active"}}`)
	node.answer("GET /swarm", `{"Version":{"Index":3},"JoinTokens":{"Worker":"SWMTKN-w","Manager":"SWMTKN-m"},"Spec":{"EncryptionConfig":{"AutoLockManagers":true}}}`)
	node.answer("GET /swarm/unlockkey", `{"UnlockKey":"SWMKEY-1-x"}`)
	node.answer("POST /swarm/init", `"n1"`)
	node.answer("GET /nodes/n1", `{"ID":"n1","ManagerStatus":{"Addr":"192.168.1.11:2377"}}`)
	env := []string{"SKEP_HOST=" + node.url}
	for args, want := range map[string]string{
		"swarm join-token worker":  "    skep swarm join --token SWMTKN-w 192.168.1.11:2377\n",
		"swarm join-token manager": "    skep swarm join --token SWMTKN-m 192.168.1.11:2377\n",
		"swarm init --autolock":    "run 'skep swarm join-token manager'",
		"swarm unlock-key":         "run the `skep swarm unlock`\ncommand",
	} {
		if r := skep(t, env, strings.Fields(args)...); r.status != 0 || !strings.Contains(r.stdout, want) || strings.Contains(r.stdout, "docker") {
			t.Errorf("%s: %+v", args, r)
		}
	}
	node.answer("GET /services", `{"message":"This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."}`)
	if r := skep(t, env, "service", "ls"); r.status != 1 || !strings.Contains(r.stderr, `Use "skep swarm init" or "skep swarm join"`) {
		t.Errorf("on a node of no cluster: %+v", r)
	}
}

// TestSwarm_EveryCommandOfDockers is still there.
func TestSwarm_EveryCommandOfDockers(t *testing.T) {
	r := skep(t, nil, "swarm", "--help")
	for _, name := range []string{"ca", "init", "join", "join-token", "leave", "unlock", "unlock-key", "update"} {
		if strings.Count(r.stdout, "\n  "+name+" ") != 1 {
			t.Errorf("swarm --help doesn't show %s once:\n%s", name, r.stdout)
		}
	}
}

func TestSwarm_JoinReadsTheTokenFromAFile(t *testing.T) {
	node := newFakeNode(t)
	node.answer("POST /swarm/join", `{}`)
	node.answer("GET /info", `{"Swarm":{"LocalNodeState":"active"}}`)
	env := []string{"SKEP_HOST=" + node.url}
	dir := t.TempDir()
	path, empty, large := filepath.Join(dir, "token"), filepath.Join(dir, "empty"), filepath.Join(dir, "large")
	write(t, path, "SWMTKN-1-file\n")
	write(t, empty, "\n")
	write(t, large, strings.Repeat("x", 5000))
	sent := func() string {
		t.Helper()
		var request struct{ JoinToken string }
		if err := json.Unmarshal([]byte(node.last()), &request); err != nil {
			t.Fatal(err)
		}
		return request.JoinToken
	}
	if r := skep(t, env, "swarm", "join", "--token-file", path, "192.168.1.11"); r.status != 0 || sent() != "SWMTKN-1-file" || r.stderr != "" {
		t.Errorf("%+v, sent %q", r, sent())
	}
	if r := skep(t, env, "swarm", "join", "--token", "SWMTKN-1-flag", "192.168.1.11"); r.status != 0 || sent() != "SWMTKN-1-flag" || !strings.Contains(r.stderr, "Use --token-file") {
		t.Errorf("%+v, sent %q", r, sent())
	}
	for _, test := range []struct {
		says string
		args []string
	}{
		{"exclude each other", []string{"--token-file", path, "--token", "x"}},
		{"it is empty", []string{"--token-file", empty}},
		{"more than 4096 bytes", []string{"--token-file", large}},
		{"no such file", []string{"--token-file", path + "-none"}},
	} {
		r := skep(t, env, append(append([]string{"swarm", "join"}, test.args...), "192.168.1.11")...)
		if r.status != 1 || !strings.Contains(r.stderr, test.says) || strings.Contains(r.stderr, "SWMTKN") {
			t.Errorf("%v: %+v; want %q", test.args, r, test.says)
		}
	}
	if r := skepReading(t, "SWMTKN-1-input\n", env, "swarm", "join", "--token-file", "-", "192.168.1.11"); r.status != 0 || sent() != "SWMTKN-1-input" {
		t.Errorf("%+v, sent %q", r, sent())
	}
}

// TestAway_NamesTheSkepDaemon: nobody is to look after docker's daemon when skep's is away.
func TestAway_NamesTheSkepDaemon(t *testing.T) {
	host := "unix://" + filepath.Join(t.TempDir(), "nobody")
	for _, args := range []string{"service ls", "node ls", "swarm init", "swarm join --token x 127.0.0.1", "info", "version", "events", "node drain --wait n1", "cluster status", "stack ls", "service rm web"} {
		r := skep(t, []string{"SKEP_HOST=" + host}, strings.Fields(args)...)
		if r.status == 0 || !strings.Contains(r.stderr, "the skep daemon") || !strings.Contains(r.stderr, host) || strings.Contains(strings.ToLower(r.stderr), "docker daemon") {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
