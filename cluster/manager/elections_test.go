package manager

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster/telemetry"
	"skep/cluster/telemetry/telemetrytest"
)

func TestElections_ByCause(t *testing.T) {
	metrics := telemetry.New()
	e := elections{metrics: metrics.Raft}
	second := func(n int) time.Time { return time.Unix(int64(n), 0) }
	e.leads("n1", 7, "n3", second(1)) // the first one is no change
	e.stands(causeSilence)
	e.leads("", 7, "n3", second(2))
	e.became(raft.Candidate, 7, second(6))
	e.leads("", 7, "n3", second(3))
	e.became(raft.Leader, 7, second(6))
	e.leads("n2", 7, "n3", second(4))
	e.became(raft.Follower, 7, second(6)) // it steps down: that isn't an election
	e.leads("n1", 7, "n3", second(5))
	e.became(raft.Candidate, 7, second(6))
	e.became(raft.Follower, 7, second(6))
	found := telemetrytest.Read(t, metrics)
	for name, want := range map[string]float64{
		"skep_raft_elections_total silence won": 1, "skep_raft_elections_total timeout lost": 1,
		"skep_raft_leader_changes_total": 2, "skep_raft_leaderless_seconds": 2,
	} {
		if got := found[name].GetCounter().GetValue() + found[name].GetHistogram().GetSampleSum(); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
		delete(found, name)
	}
	for name := range found {
		if len(name) > len("skep_raft_elections_total") && name[:25] == "skep_raft_elections_total" {
			t.Errorf("there is %s, too", name)
		}
	}
}
