package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"skep/cluster"
)

// ailing is a cluster of two managers and a worker, of which one manager is gone.
func ailing() cluster.Status {
	return cluster.Status{
		ClusterID: "c0", LeaderID: "a1", Term: 7, ClusterLevel: cluster.ClusterLevel{Level: 2},
		Managers: []cluster.ManagerHealth{
			{NodeID: "a1", Hostname: "n1", Addr: "127.0.1.1:2377", Leader: true, Voter: true, Reachable: true, Term: 7, LastIndex: 42, CommitIndex: 42, AppliedIndex: 42, SnapshotIndex: 10},
			{NodeID: "b2", Hostname: "n2", Addr: "127.0.1.2:2377", Voter: true, Reachable: true, Term: 7, LastIndex: 42, CommitIndex: 41, AppliedIndex: 41, LastContact: 31 * time.Millisecond},
			{NodeID: "c3", Hostname: "n3", Addr: "127.0.1.3:2377", Voter: true},
		},
		Nodes: []cluster.NodeHealth{
			{NodeID: "a1", Hostname: "n1", Addr: "127.0.1.1", Role: "manager", State: "ready", Availability: "active", Gossip: "alive", Session: "b2", Build: cluster.Build{Version: "0.2.0"}},
			{NodeID: "c3", Hostname: "n3", Addr: "127.0.1.3", Role: "manager", State: "down", Availability: "active", Gossip: "absent", Reason: "no session and gone for gossip"},
		},
		Problems: []string{"manager n3 doesn't answer"},
	}
}

func TestClusterStatus_ShowsWhatIsUnhealthy(t *testing.T) {
	node := newFakeNode(t)
	node.say(ailing())
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "cluster", "status")
	if r.status != exitProblems || r.stderr != "" {
		t.Errorf("status %d, want %d: %s", r.status, exitProblems, r.stderr)
	}
	for _, line := range []string{
		"Cluster c0: leader n1, term 7, level 2",
		"MANAGER ADDRESS ROLE TERM LAST COMMIT APPLIED SNAPSHOT HEARD OF LEADER",
		"n1 127.0.1.1:2377 leader 7 42 42 42 10 -",
		"n2 127.0.1.2:2377 follower 7 42 41 41 0 31ms ago",
		"n3 127.0.1.3:2377 unreachable - - - - - -",
		"NODE ADDRESS ROLE STATE AVAILABILITY GOSSIP SESSION WITH SKEP REASON",
		"n1 127.0.1.1 manager ready active alive n2 0.2.0",
		"n3 127.0.1.3 manager down active absent - - no session and gone for gossip",
		"Problems:",
		"manager n3 doesn't answer",
	} {
		if !hasLine(r.stdout, line) {
			t.Errorf("no line %q in\n%s", line, r.stdout)
		}
	}
}

func TestClusterStatus_AllIsWell(t *testing.T) {
	node := newFakeNode(t)
	well := ailing()
	well.Problems = nil
	node.say(well)
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "cluster", "status")
	if r.status != 0 || !hasLine(r.stdout, "All is well.") {
		t.Errorf("status %d:\n%s", r.status, r.stdout)
	}
}

func TestClusterStatus_JSONIsTheStatus(t *testing.T) {
	node := newFakeNode(t)
	node.say(ailing())
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "cluster", "status", "--json")
	var got cluster.Status
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Term != 7 || len(got.Managers) != 3 || got.Problems[0] != "manager n3 doesn't answer" || r.status != exitProblems {
		t.Errorf("status %d: %+v", r.status, got)
	}
}

func TestClusterUpdate_SetsLabels(t *testing.T) {
	node := newFakeNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	if r := skep(t, env, "cluster", "update"); r.status != 1 || !strings.Contains(r.stderr, "nothing to change") {
		t.Errorf("without a flag: %+v", r)
	}
	for flag, want := range map[string]string{
		"--allow-host-options":       `"Labels":{"a":"b","skep.allow-host-options":"true"}`,
		"--allow-host-options=false": `"Labels":{"a":"b","skep.allow-host-options":"false"}`,
		"--encrypt-networks=false":   `"Labels":{"a":"b","skep.encrypt-networks":"false"}`,
		"--forbid-exec":              `"Labels":{"a":"b","skep.forbid-exec":"true"}`,
		"--forbid-exec=false":        `"Labels":{"a":"b","skep.forbid-exec":"false"}`,
		"--console=write":            `"Labels":{"a":"b","skep.console":"write"}`,
		"--revision-history=3":       `"Labels":{"a":"b","skep.revision-history":"3"}`,
	} {
		if r := skep(t, env, "cluster", "update", flag); r.status != 0 {
			t.Fatalf("%s: %+v", flag, r)
		}
		updates := node.asked("/swarm/update")
		query, body := updates[len(updates)-1].URL.RawQuery, node.last()
		if !strings.Contains(query, "version=12") || !strings.Contains(body, want) {
			t.Errorf("%s sent %s %s", flag, query, body)
		}
	}
}

// Who has all networks encrypted from now on hears of those that aren't.
func TestClusterUpdate_NamesNetworksInClear(t *testing.T) {
	for _, c := range []struct {
		inClear []string
		updated string
		shown   string
	}{
		{[]string{"ingress", "old"}, "stay in clear:\n  ingress\n  old\nTo have one encrypted, ", "New overlay networks are encrypted; in clear are those of before: ingress, old"},
		{nil, "All overlay networks are encrypted, and so are those that are made from now on.\n", "All overlay networks are encrypted."},
	} {
		node := newFakeNode(t)
		env := []string{"SKEP_HOST=" + node.url}
		status := ailing()
		status.EncryptNetworks, status.InClear = true, c.inClear
		node.say(status)
		if r := skep(t, env, "cluster", "update", "--encrypt-networks"); r.status != 0 || !strings.Contains(r.stdout, c.updated) {
			t.Errorf("the update says: %+v", r)
		}
		if body := node.last(); !strings.Contains(body, `"skep.encrypt-networks":"true"`) {
			t.Errorf("it sent %s", body)
		}
		if r := skep(t, env, "cluster", "status"); !hasLine(r.stdout, c.shown) {
			t.Errorf("the status is\n%s", r.stdout)
		}
	}
}

// hasLine looks for a line, whatever the width of its columns.
func hasLine(text, line string) bool {
	for _, l := range strings.Split(text, "\n") {
		if strings.Join(strings.Fields(l), " ") == line {
			return true
		}
	}
	return false
}

func TestVersion_OfTheCluster(t *testing.T) {
	node := newFakeNode(t)
	node.say(ailing())
	env := []string{"SKEP_HOST=" + node.url}
	r := skep(t, env, "version", "--cluster")
	for _, line := range []string{
		"NODE ROLE STATE SKEP LEVEL", "n1 manager ready 0.2.0 1", "n3 manager down - 1",
		"The cluster is at level 2.", "skep 0.2.0: 1 node", "skep of an unknown version: 1 node",
	} {
		if r.status != 0 || !hasLine(r.stdout, line) {
			t.Errorf("no line %q in %+v", line, r)
		}
	}
	if r := skep(t, env, "version", "--cluster", "--format", "json"); r.status != 1 {
		t.Errorf("%+v", r)
	}
}
