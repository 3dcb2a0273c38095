package main

import (
	"strings"
	"testing"
	"time"

	"skep/cluster"
)

// ready is a cluster of three managers and a worker that can be upgraded, at noon.
func ready(noon time.Time) cluster.Status {
	build := cluster.Build{Version: "0.1.0", Level: 1, MinLevel: 1}
	s := cluster.Status{ClusterID: "c0", LeaderID: "b", Term: 7, ClusterLevel: cluster.ClusterLevel{Level: 1}, BackupAt: noon.Add(-time.Hour)}
	for _, id := range []string{"a", "b", "c", "d"} {
		role := "worker"
		if id != "d" {
			role = "manager"
			s.Managers = append(s.Managers, cluster.ManagerHealth{
				NodeID: id, Hostname: "n" + id, Leader: id == "b", Voter: true, Reachable: true, Build: build,
				DiskFree: 10 << 30, DiskSize: 20 << 30, Digest: "d1", DigestIndex: 9,
			})
		}
		s.Nodes = append(s.Nodes, cluster.NodeHealth{NodeID: id, Hostname: "n" + id, Role: role, State: "ready", Build: build})
	}
	return s
}

func TestHindrances(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	to := cluster.Build{Version: "0.2.0", Level: 2, MinLevel: 1}
	if found := hindrances(ready(noon), to, noon); len(found) > 0 {
		t.Errorf("nothing is in the way: %q", found)
	}
	for want, change := range map[string]func(*cluster.Status){
		"something is wrong":                             func(s *cluster.Status) { s.Problems = []string{"something is wrong"} },
		"0 of 2 managers would answer, and 2 are needed": func(s *cluster.Status) { s.Managers = s.Managers[:2]; s.Managers[1].Reachable = false },
		"1 of 3 managers would answer":                   func(s *cluster.Status) { s.Managers[0].Reachable = false },
		"there is no backup":                             func(s *cluster.Status) { s.BackupAt = time.Time{} },
		"backup is 25h0m0s old":                          func(s *cluster.Status) { s.BackupAt = noon.Add(-25 * time.Hour) },
		"the cluster is at level 3":                      func(s *cluster.Status) { s.Level = 3 },
		"disk of manager na has 1023 MiB free":           func(s *cluster.Status) { s.Managers[0].DiskFree = 1<<30 - 1 },
		"disk of manager nb has 2048 MiB free":           func(s *cluster.Status) { s.Managers[1].DiskFree, s.Managers[1].DiskSize = 2<<30, 100<<30 },
		"and 3139 are needed to keep a copy": func(s *cluster.Status) {
			s.Managers[1].DiskFree, s.Managers[1].DiskSize, s.Managers[1].CopySize = 3<<30, 10<<30, 3<<30
		},
		"isn't reached yet: no room on nb": func(s *cluster.Status) { s.LevelWaits = "no room on nb" },
		"manager nc has another database":  func(s *cluster.Status) { s.Managers[2].Digest = "d2" },
		"newer than this command":          func(s *cluster.Status) { s.Managers[2].Level = 3 },
	} {
		s := ready(noon)
		change(&s)
		found := hindrances(s, to, noon)
		if len(found) != 1 || !strings.Contains(found[0], want) {
			t.Errorf("want %q: %q", want, found)
		}
	}
	// Whatever a node that is ready warns of, it can be restarted.
	warned := ready(noon)
	warned.Nodes[3].Reason = "encrypted networks are slow here: the kernel has no WireGuard"
	warned.Problems = []string{warned.Nodes[3].Warning()}
	if found := hindrances(warned, to, noon); len(found) > 0 || !strings.Contains(warned.Problems[0], "node nd (d): encrypted networks are slow here") {
		t.Errorf("a warning is in the way: %q", found)
	}
	warned.Nodes[3].State = "down"
	if found := hindrances(warned, to, noon); len(found) != 1 {
		t.Errorf("of a node that is down: %q", found)
	}
	// At another index there may be another database.
	s := ready(noon)
	s.Managers[2].Digest, s.Managers[2].DigestIndex = "d2", 10
	if found := hindrances(s, to, noon); len(found) > 0 {
		t.Errorf("at another index: %q", found)
	}
}

func TestUpgradeCheck_ExitsLikeStatus(t *testing.T) {
	node := newFakeNode(t)
	s := ready(time.Now())
	node.say(s)
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "upgrade", "check")
	if r.status != 0 || !strings.Contains(r.stdout, "Nothing is in the way of skep "+version+". In this order: na, nc, nb, nd.") {
		t.Errorf("%+v", r)
	}
	s.BackupAt = time.Time{}
	node.say(s)
	r = skep(t, []string{"SKEP_HOST=" + node.url}, "upgrade", "check")
	if r.status != exitProblems || !strings.Contains(r.stdout, "there is no backup") {
		t.Errorf("%+v", r)
	}
	if r = skep(t, []string{"SKEP_HOST=" + node.url}, "upgrade", "check", "--json"); r.status != exitProblems || !strings.Contains(r.stdout, `"Problems": [`) {
		t.Errorf("%+v", r)
	}
}

func TestUpgradeStatus_SaysWhatIsLeft(t *testing.T) {
	node := newFakeNode(t)
	s := ready(time.Now())
	s.Managers[0].Version, s.Nodes[0].Version = version, version
	node.say(s)
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "upgrade", "status")
	for _, line := range []string{
		"NODE ROLE SKEP LEVEL STATE", "na manager " + version + " 1 ready", "nb leader 0.1.0 1 ready", "nd worker 0.1.0 1 ready",
		"The cluster is at level 1.", "To be upgraded to skep " + version + ", in this order: nc, nb, nd.",
	} {
		if !hasLine(r.stdout, line) {
			t.Errorf("no line %q in\n%s", line, r.stdout)
		}
	}
	if r.status != exitProblems {
		t.Errorf("status %d", r.status)
	}
	for i := range s.Nodes {
		s.Nodes[i].Version = version
	}
	for i := range s.Managers {
		s.Managers[i].Version = version
	}
	node.say(s)
	if r = skep(t, []string{"SKEP_HOST=" + node.url}, "upgrade", "status"); r.status != 0 || !hasLine(r.stdout, "All nodes run skep "+version+".") {
		t.Errorf("%+v", r)
	}
}
