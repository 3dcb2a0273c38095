package clustertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"

	"skep/cluster"
)

// leaderless wants a machine to refuse what only a leader can say of the cluster, and to
// say of itself how it is.
func leaderless(t *testing.T, m *Machine) {
	t.Helper()
	refused := func(method, path string, body any) {
		t.Helper()
		answer, err := m.call(method, path, body)
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Code != http.StatusServiceUnavailable || !strings.Contains(refusal.Text, "The swarm does not have a leader") {
			t.Errorf("without a leader %s %s on %s: %q, %v", method, path, m.Name, answer, err)
		}
	}
	for _, path := range []string{
		"/services", "/services/web-1", "/services/none", "/nodes", "/tasks", "/secrets", "/configs", "/swarm", "/swarm/unlockkey",
		"/services/web-1/logs?stdout=1", "/skep/v1/services/web-1/revisions",
	} {
		refused(http.MethodGet, path, nil)
	}
	refused(http.MethodPost, "/skep/v1/backup", cluster.BackupRequest{Recipient: newRecipient(t).Recipient().String()})

	var info system.Info
	m.Do(http.MethodGet, "/info", nil, &info)
	if info.Swarm.LocalNodeState != swarm.LocalNodeStateActive || !strings.Contains(info.Swarm.Error, "does not have a leader") {
		t.Errorf("without a leader %s says of itself %s, %q", m.Name, info.Swarm.LocalNodeState, info.Swarm.Error)
	}
	var status cluster.Status
	m.Do(http.MethodGet, "/skep/v1/status", nil, &status)
	if len(status.Problems) == 0 || !strings.Contains(status.Problems[0], "there is no leader: 1 of 3 managers answer, and 2 are needed") || len(status.Managers) != 3 {
		t.Errorf("without a leader the status of %s has %d managers, and says %q", m.Name, len(status.Managers), status.Problems)
	}
}

// TestCluster_WithoutALeaderNothingIsSaidToBeGone: a manager that was restarted has its last snapshot
// only until a leader tells it what was committed since, and one that lost the leader can't
// know what was. Who is told an empty list believes it, and makes everything anew.
func TestCluster_WithoutALeaderNothingIsSaidToBeGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		for i := range 10 {
			c.Runs(time.Minute, c.Machines[0].Create(Spec(fmt.Sprint("web-", i), "app:1", 1)), "app:1", 1)
		}
		last := c.Machines[0]
		for last == c.Leader() {
			last = c.Machines[1]
		}
		for _, m := range c.Machines[:3] {
			if m != last {
				m.Crash()
			}
		}
		time.Sleep(5 * time.Second)
		leaderless(t, last)
		last.Crash()
		last.Restart()
		leaderless(t, last)
		for _, m := range c.Machines[:3] {
			if m.off() {
				m.Restart()
				break
			}
		}
		c.Leader()
		var services []swarm.Service
		if err := last.Try(http.MethodGet, "/services", nil, &services); err != nil || len(services) != 10 {
			t.Errorf("with a leader %s has %d services, %v", last.Name, len(services), err)
		}
	})
}

// TestCluster_AManagerThatWaitsForItsDatabaseIsOne: it says why it doesn't answer, and doesn't
// leave without force.
func TestCluster_AManagerThatWaitsForItsDatabaseIsOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		for _, m := range c.Machines {
			m.Crash()
		}
		last := c.Machines[1]
		last.CutFile(rand.New(rand.NewPCG(1, 1)), "raft/raft.db")
		last.Restart()
		for method, path := range map[string]string{http.MethodGet: "/services", http.MethodPost: "/swarm/leave"} {
			err := last.Try(method, path, nil, nil)
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Code != http.StatusServiceUnavailable || strings.Contains(refusal.Text, "is not a swarm manager") {
				t.Errorf("%s %s: %v", method, path, err)
			}
		}
		for _, m := range c.Machines {
			if m != last {
				m.Restart()
			}
		}
		c.Eventually(time.Minute, "it has its database again", func() error { return last.Try(http.MethodGet, "/services", nil, nil) })
	})
}
