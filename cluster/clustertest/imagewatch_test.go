package clustertest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/registry"
	"github.com/docker/docker/api/types/swarm"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"skep/cluster"
)

// TestCluster_ImageWatchSurvivesItsLeader moves a tag while leaders die: the service is updated to
// each digest once. One that runs nowhere is rolled back, and not tried again by any leader.
func TestCluster_ImageWatchSurvivesItsLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		tag, platform, asked := 1, "", 0
		var fails error
		push := func(n int, on string, err error) {
			mu.Lock()
			defer mu.Unlock()
			tag, platform, fails = n, on, err
		}
		questions := func() int {
			mu.Lock()
			defer mu.Unlock()
			n := asked
			asked = 0
			return n
		}
		digestOf := func(n int) string { return fmt.Sprintf("sha256:%064d", n) }
		c := Start(t, 3, 2, Options{Registry: func(_ context.Context, image, auth string) (found registry.DistributionInspect, err error) {
			mu.Lock()
			defer mu.Unlock()
			if asked++; image != "docker.io/library/app:1" || auth != "" {
				return found, fmt.Errorf("asked for %s with %q", image, auth)
			}
			found.Descriptor.Digest = digest.Digest(digestOf(tag))
			if platform != "" {
				found.Platforms = []ocispec.Platform{{OS: "linux", Architecture: platform}}
			}
			return found, fails
		}})
		c.managersOnly()
		spec := Spec("web", "app:1@"+digestOf(1), 3)
		spec.Labels = map[string]string{"skep.image.watch": "1m", "skep.start-deadline": "5s"}
		spec.UpdateConfig.FailureAction = swarm.UpdateFailureActionRollback
		id := c.Machines[0].Create(spec)
		runs := func(n int) {
			t.Helper()
			c.Runs(3*time.Minute, id, "app:1@"+digestOf(n), 3)
		}
		var dead *Machine
		another := func() { // leader
			if dead != nil {
				dead.Restart()
				time.Sleep(10 * time.Second)
			}
			dead = c.Leader()
			dead.Crash()
			c.Leader()
		}
		runs(1)
		push(2, "", nil)
		another()
		runs(2)
		push(3, "s390x", nil)
		time.Sleep(40 * time.Second)
		another()
		c.Eventually(3*time.Minute, "the broken image is rolled back", func() error {
			if s := c.Manager().Service(id); s.UpdateStatus == nil || s.UpdateStatus.State != swarm.UpdateStateRollbackCompleted {
				return fmt.Errorf("%+v", s.UpdateStatus)
			}
			return nil
		})
		runs(2)
		version := c.Manager().Service(id).Version.Index
		for range 3 {
			another()
			time.Sleep(2 * time.Minute)
		}
		runs(2)
		if s := c.Manager().Service(id); s.Version.Index != version {
			t.Errorf("the service was written after the rollback: %+v", s.UpdateStatus)
		}
		var why cluster.Why
		c.Manager().Do(http.MethodGet, "/skep/v1/services/web/why", nil, &why)
		if text := why.String(); !strings.Contains(text, digestOf(3)) || !strings.Contains(text, "the service was taken back from that") {
			t.Error(text)
		}

		push(4, "", nil)
		runs(4)
		// What a user goes back from isn't brought back either.
		service := c.Manager().Service(id)
		c.Manager().Do(http.MethodPost, fmt.Sprintf("/services/%s/update?version=%d&rollback=previous", id, service.Version.Index), service.Spec, nil)
		runs(2)
		another()
		time.Sleep(3 * time.Minute)
		runs(2)

		push(5, "", errors.New("unauthorized: authentication required"))
		time.Sleep(90 * time.Second)
		var status cluster.Status
		c.Leader().Do(http.MethodGet, "/skep/v1/status", nil, &status)
		if text := strings.Join(status.Problems, "\n"); !strings.Contains(text, "service web: which digest docker.io/library/app:1 is isn't known: unauthorized: authentication required") {
			t.Errorf("the status has the problems %q", status.Problems)
		}
		push(5, "", nil)
		runs(5)
		dead.Restart()
		questions()
		time.Sleep(10 * time.Minute)
		if n := questions(); n != 10 {
			t.Errorf("%d questions in 10 minutes", n)
		}
		var history []cluster.KeptRevision
		c.Manager().Do(http.MethodGet, "/skep/v1/services/web/revisions", nil, &history)
		moves := 0
		for _, r := range history {
			if r.By == cluster.ImageWatcher && strings.HasPrefix(r.Message, "image moved: app:1 is sha256:") {
				moves++
			}
		}
		if moves != 4 {
			t.Errorf("%d moves in %+v", moves, history)
		}
		c.Same()
	})
}
