package clustertest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// audit is what a machine tells of requests to all managers, without those that the tests' own looks make.
func (m *Machine) audit() cluster.AuditLog {
	m.cluster.t.Helper()
	var log cluster.AuditLog
	m.Do(http.MethodGet, "/skep/v1/audit", nil, &log)
	log.Records = slices.DeleteFunc(log.Records, func(r cluster.Audited) bool {
		return strings.HasPrefix(r.Route, "GET ") || strings.HasPrefix(r.Route, "POST /swarm") || r.Route == "POST /v1/join"
	})
	return log
}

// TestAudit_IsKeptByWhoWasAsked asks a follower, which tells the versions that the leader wrote, while leaders are lost: what
// is told of each request is what its client was told.
func TestAudit_IsKeptByWhoWasAsked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		asked := c.Machines[0]
		if asked == c.Leader() {
			asked = c.Machines[1]
		}
		id := asked.Create(Spec("web", "app:1", 1))
		first := asked.Service(id).Version.Index
		asked.Update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:2" })
		if err := asked.Try(http.MethodPost, "/services/create", Spec("web", "app:1", 1), nil); err == nil {
			t.Fatal("two services have one name")
		}
		log := c.Leader().audit()
		if len(log.Missing) > 0 || len(log.Records) != 3 {
			t.Fatalf("%+v", log)
		}
		for i, want := range []cluster.Audited{
			{Route: "POST /services/create", Result: cluster.AuditDone, Objects: []cluster.AuditedObject{{Kind: "service", ID: id, Name: "web", To: first}}},
			{Route: "POST /services/{id}/update", Ref: id, Result: cluster.AuditDone, Objects: []cluster.AuditedObject{{Kind: "service", ID: id, Name: "web", From: first}}},
			{Route: "POST /services/create", Result: cluster.AuditRefused},
		} {
			got := log.Records[i]
			if i == 1 && len(got.Objects) == 1 {
				if to := got.Objects[0].To; to <= first {
					t.Errorf("it is at version %d, after %d", to, first)
				}
				want.Objects[0].To = got.Objects[0].To
			}
			if got.Manager != asked.Name || got.Route != want.Route || got.Ref != want.Ref || got.Result != want.Result || !slices.Equal(got.Objects, want.Objects) || !strings.HasSuffix(got.By, " on "+asked.Name) {
				t.Errorf("%d: told %+v, want %+v", i, got, want)
			}
		}

		// Leaders are lost in the middle of writes.
		outcomes := map[string]error{}
		for round := range 4 {
			leader := c.Leader()
			by := c.Machines[round%3]
			if by == leader {
				by = c.Machines[(round+1)%3]
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				time.Sleep(time.Duration(round) * 3 * time.Millisecond)
				leader.Crash()
			}()
			for i := range 20 {
				name := fmt.Sprintf("s%d-%d", round, i)
				outcomes[name] = by.Try(http.MethodPost, "/secrets/create", swarm.SecretSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte("x")}, nil)
			}
			<-done
			if log := by.audit(); !slices.Equal(log.Missing, []string{leader.Name}) {
				t.Errorf("without %s these are missing: %v", leader.Name, log.Missing)
			}
			told := map[string]cluster.Audited{}
			results := map[cluster.AuditResult]int{}
			for _, r := range by.audit().Records {
				if r.Route != "POST /secrets/create" || r.Manager != by.Name {
					continue
				}
				results[r.Result]++
				for _, o := range r.Objects {
					told[o.Name] = r
				}
			}
			for i := range 20 {
				name := fmt.Sprintf("s%d-%d", round, i)
				r, is := told[name]
				switch err := outcomes[name]; {
				case err == nil && (!is || r.Result != cluster.AuditDone):
					t.Errorf("%s was made, and it tells %+v", name, r)
				case err != nil && is && r.Result == cluster.AuditDone:
					t.Errorf("%s: %v, and it tells %+v", name, err, r)
				}
			}
			leader.Restart()
			c.vote(3)
		}
		var failed []error
		for _, err := range outcomes {
			failed = append(failed, err)
		}
		if err := errors.Join(failed...); err != nil {
			t.Log(err)
		}
		c.Same()
	})
}
