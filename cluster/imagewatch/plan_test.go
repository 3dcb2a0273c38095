package imagewatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/store"
)

// sha is the digest number n.
func sha(n int) string { return fmt.Sprintf("sha256:%064d", n) }

func specOf(image string, labels map[string]string) swarm.ServiceSpec {
	one := uint64(1)
	if labels == nil {
		labels = map[string]string{"skep.image.watch": "5m"}
	}
	return swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: "web", Labels: labels},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: image}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &one}},
	}
}

// watch is watchedOf without a database.
func watch(service *cluster.Service, rollout *cluster.Rollout) (w Watched, ok bool) {
	w, ok = watchedOf(store.New(store.Config{}).View(), service)
	w.Rollout = rollout
	return w, ok
}

var monday = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func TestDecide(t *testing.T) {
	rollout := func(state swarm.UpdateState) *cluster.Rollout { return &cluster.Rollout{State: state} }
	window := map[string]string{"skep.image.watch": "5m", "skep.image.watch.window": "Mon 13:00-15:00", "skep.image.watch.tz": "Europe/Berlin"}
	for what, c := range map[string]struct {
		image   string
		left    []string
		labels  map[string]string
		rollout *cluster.Rollout
		found   Answer
		now     time.Time
		want    string // the image it moves to, "forget", or what Waits says
	}{
		"the same":                    {image: "app:1@" + sha(1), found: Answer{Digest: sha(1)}},
		"another":                     {image: "app:1@" + sha(1), found: Answer{Digest: sha(2)}, want: "app:1@" + sha(2)},
		"of another registry":         {image: "r.example.com:5000/a/app@" + sha(1), found: Answer{Digest: sha(2)}},
		"of no digest":                {image: "app:1", found: Answer{Digest: sha(2)}, want: "app:1@" + sha(2)},
		"of no tag":                   {image: "app", found: Answer{Digest: sha(2)}, want: "app:latest@" + sha(2)},
		"not known":                   {image: "app:1@" + sha(1), found: Answer{Problem: "no"}},
		"after an update":             {image: "app:1@" + sha(1), found: Answer{Digest: sha(2)}, rollout: rollout(swarm.UpdateStateCompleted), want: "app:1@" + sha(2)},
		"after a rollback":            {image: "app:1@" + sha(1), found: Answer{Digest: sha(2)}, rollout: rollout(swarm.UpdateStateRollbackCompleted), want: "app:1@" + sha(2)},
		"during one":                  {image: "app:1@" + sha(1), found: Answer{Digest: sha(2)}, rollout: rollout(swarm.UpdateStateUpdating), want: "under way"},
		"while one is paused":         {image: "app:1@" + sha(1), found: Answer{Digest: sha(2)}, rollout: rollout(swarm.UpdateStatePaused), want: "paused"},
		"to what it left":             {image: "app:1@" + sha(1), left: []string{sha(2), sha(3)}, found: Answer{Digest: sha(2)}, want: "`skep service update --image app:1 web`"},
		"to what it hasn't left":      {image: "app:1@" + sha(1), left: []string{sha(2), sha(3)}, found: Answer{Digest: sha(4)}, want: "app:1@" + sha(4)},
		"it has what it left":         {image: "app:1@" + sha(2), left: []string{sha(1)}, found: Answer{Digest: sha(2)}, want: "forget"},
		"it is being updated to that": {image: "app:1@" + sha(2), left: []string{sha(1)}, found: Answer{Digest: sha(2)}, rollout: rollout(swarm.UpdateStateUpdating)},
		"garbage":                     {image: "app:1@" + sha(2), found: Answer{Digest: "sha256:1"}, want: "read digest"},
		"before the window":           {image: "app:1@" + sha(1), labels: window, now: monday.Add(-1), found: Answer{At: monday.Add(-time.Hour), Digest: sha(2)}, want: "opens at 2026-11-30T12:00:00Z"},
		"in it, with an old answer":   {image: "app:1@" + sha(1), labels: window, now: monday, found: Answer{At: monday.Add(-1), Digest: sha(2)}, want: "asked again"},
		"in it, with a new one":       {image: "app:1@" + sha(1), labels: window, now: monday.Add(2*time.Hour - 1), found: Answer{At: monday, Digest: sha(2)}, want: "app:1@" + sha(2)},
		"after it":                    {image: "app:1@" + sha(1), labels: window, now: monday.Add(2 * time.Hour), found: Answer{At: monday, Digest: sha(2)}, want: "opens at 2026-12-07T12:00:00Z"},
	} {
		service := &cluster.Service{ID: "s", Spec: specOf(c.image, c.labels), LeftImages: c.left}
		watched, ok := watch(service, c.rollout)
		if !ok {
			if c.want != "" {
				t.Errorf("%s: it isn't watched", what)
			}
			continue
		}
		d := watched.Decide(c.found, c.now)
		got := d.Image
		if d.Forget {
			got = "forget"
		}
		if strings.HasPrefix(c.want, "app") || c.want == "forget" || c.want == "" {
			if got != c.want || (d.Waits != "" && c.want != "") {
				t.Errorf("%s: %+v, want %q", what, d, c.want)
			}
		} else if got != "" || !strings.Contains(d.Waits, c.want) {
			t.Errorf("%s: %+v, want %q", what, d, c.want)
		}
	}
}

// TestNextTurn holds that leaders ask at the same times, once in each span, and not for all images at once.
func TestNextTurn(t *testing.T) {
	places := map[time.Time]int{}
	for i := range 1000 {
		image := fmt.Sprint("app:", i)
		at := nextTurn(image, 5*time.Minute, monday)
		if !at.After(monday) || at.After(monday.Add(5*time.Minute)) {
			t.Fatalf("%s is asked at %v", image, at)
		}
		if again := nextTurn(image, 5*time.Minute, at); !again.Equal(at.Add(5 * time.Minute)) {
			t.Fatalf("%s is asked at %v, and then at %v", image, at, again)
		}
		if another := nextTurn(image, 5*time.Minute, at.Add(-1)); !another.Equal(at) {
			t.Fatalf("%s is asked at %v, or at %v by another leader", image, at, another)
		}
		places[at.Truncate(time.Second)]++
	}
	for at, n := range places {
		if n > 15 {
			t.Errorf("%d at %v", n, at)
		}
	}
}

// TestWatch_NeverRetries plays histories of a tag, a service, its users and its failures, by the same
// functions as the cluster, and holds that a digest which the service was taken back from isn't
// brought back before the tag named another, or somebody updated the service to it by hand; and
// that one which the tag names for the first time comes at once.
func TestWatch_NeverRetries(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		change := cluster.CreateService("s", specOf("app:1@"+sha(0), nil), "")
		service, rollout := change.Service, change.Rollout
		revisions := map[uint64]*cluster.Revision{1: change.Revision}
		tag, last := 0, 0
		seen := map[int]bool{0: true} // digests that the service had
		// left are the digests that it was taken back from, and hasn't been free for since.
		left := map[int]bool{}
		now, moves := monday, 0
		digest := func() int {
			_, text, err := cluster.SplitImage(service.Spec.TaskTemplate.ContainerSpec.Image)
			if err != nil {
				t.Fatal(err)
			}
			if text == "" {
				return -1
			}
			var n int
			fmt.Sscanf(text, "sha256:%d", &n)
			return n
		}
		write := func(c cluster.Change, byHand bool) {
			before := digest()
			service, rollout = c.Service, c.Rollout
			if c.Revision != nil {
				revisions[c.Revision.Number] = c.Revision
			}
			if rollout == nil && revisions[service.Revision] != nil {
				rollout = &cluster.Rollout{ServiceID: "s", State: swarm.UpdateStateUpdating, Revision: service.Revision}
			}
			after := digest()
			if before != after && before >= 0 && byHand {
				left[before] = true
			}
			delete(left, after)
			seen[after] = true
		}
		update := func(edit func(*swarm.ServiceSpec)) {
			spec := service.Spec
			container := *spec.TaskTemplate.ContainerSpec
			spec.TaskTemplate.ContainerSpec = &container
			edit(&spec)
			write(cluster.UpdateService(service, revisions[service.Revision], rollout, spec, ""), true)
		}
		settle := func(r *rapid.T) { // or not yet
			if rapid.IntRange(0, 3).Draw(r, "settles") > 0 {
				rollout = &cluster.Rollout{State: swarm.UpdateStateRollbackCompleted, Revision: service.Revision}
			}
		}
		ask := func(r *rapid.T) {
			watched, _ := watch(service, rollout)
			d := watched.Decide(Answer{At: now, Digest: sha(tag)}, now)
			if d.Forget {
				next := *service
				next.LeftImages = nil
				service = &next
			}
			if d.Image != "" {
				if left[tag] {
					r.Fatalf("it goes back to %d: %v", tag, service.LeftImages)
				}
				moves++
				write(cluster.MoveImage(service, revisions[service.Revision], rollout, d.Image, nil), false)
				if digest() != tag || rollout.Revision != service.Revision {
					r.Fatalf("it moved to %s for %d", service.Spec.TaskTemplate.ContainerSpec.Image, tag)
				}
			} else if (rollout == nil || rollout.Done()) && !seen[tag] {
				r.Fatalf("it doesn't move to %d, which is new: %+v", tag, d)
			}
		}
		fail := func(r *rapid.T) {
			if rollout == nil || rollout.Done() || rollout.Paused() {
				return
			}
			if rapid.Bool().Draw(r, "pauses") || service.Previous == nil || rollout.RollingBack() {
				rollout = &cluster.Rollout{State: swarm.UpdateStatePaused, Revision: rollout.Revision}
				return
			}
			change, err := cluster.AbandonUpdate(service, "", now)
			if err != nil {
				t.Fatal(err)
			}
			write(change, true)
			settle(r)
		}
		actions := map[string]func(*rapid.T){
			"it fails": fail, "it fails, too": fail,
			"ask": ask, "ask again": ask, "ask once more": ask,
			"the tag moves on": func(*rapid.T) { last++; tag = last; clear(left) },
			"the tag moves back": func(r *rapid.T) {
				if to := rapid.IntRange(0, last).Draw(r, "to"); to != tag {
					tag = to
					clear(left)
				}
			},
			"the update succeeds": func(*rapid.T) {
				if rollout != nil && !rollout.Paused() {
					rollout = &cluster.Rollout{State: swarm.UpdateStateCompleted, Revision: rollout.Revision}
				}
			},
			"a user rolls back": func(r *rapid.T) {
				if change, err := cluster.RollbackService(service, revisions[service.PreviousRevision], "", now); err == nil {
					write(change, true)
					settle(r)
				}
			},
			"a user rolls back to a revision": func(r *rapid.T) {
				n := uint64(rapid.IntRange(1, int(service.LastRevision)).Draw(r, "revision"))
				if change, err := cluster.RollbackServiceTo(service, revisions[n], "", now); err == nil {
					write(change, true)
					settle(r)
				}
			},
			"a user changes something else": func(*rapid.T) {
				update(func(s *swarm.ServiceSpec) {
					s.TaskTemplate.ContainerSpec.Env = []string{fmt.Sprint("N=", service.LastRevision)}
				})
			},
			"a user deploys the tag": func(*rapid.T) {
				update(func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:1@" + sha(tag) })
			},
			"a user deploys the tag without a digest": func(*rapid.T) {
				update(func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:1" })
			},
			"a user deploys some digest": func(r *rapid.T) {
				n := rapid.IntRange(0, last).Draw(r, "digest")
				update(func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:1@" + sha(n) })
			},
		}
		r.Repeat(actions)
	})
}
