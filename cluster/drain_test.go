package cluster

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

func TestDrainFor(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 1, time.FixedZone("CET", 3600))
	labels := map[string]string{"mine": "1"}
	spec := swarm.NodeSpec{Annotations: swarm.Annotations{Labels: labels}, Role: swarm.NodeRoleWorker, Availability: swarm.NodeAvailabilityPause}
	drained, err := DrainFor(spec, now, 30*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	// Never sooner than asked for.
	if got := drained.Labels[LabelDrainUntil.Name]; got != "2030-01-02T02:34:06Z" || drained.Labels["mine"] != "1" || len(labels) != 1 {
		t.Errorf("labels %v, and those of before %v", drained.Labels, labels)
	}
	if until := DrainsUntil(drained); until.Before(now.Add(30*time.Minute)) || until.After(now.Add(30*time.Minute+time.Second)) {
		t.Errorf("it is drained until %v", until)
	}
	if err := CheckLabels(OnNode, drained.Labels); err != nil {
		t.Error(err)
	}
	active := Activated(drained)
	if active.Availability != swarm.NodeAvailabilityActive || !maps.Equal(active.Labels, labels) || active.Role != spec.Role || !DrainsUntil(active).IsZero() {
		t.Errorf("active again: %+v", active)
	}
	if none, err := DrainFor(swarm.NodeSpec{}, now, 1); err != nil || DrainsUntil(none).IsZero() {
		t.Errorf("without labels: %+v, %v", none, err)
	}
	for _, length := range []time.Duration{0, -time.Second, MaxDrain + 1} {
		if _, err := DrainFor(spec, now, length); !errors.Is(err, ErrInvalid) {
			t.Errorf("for %v: %v", length, err)
		}
	}
}

func TestCheckDrainUntil(t *testing.T) {
	const until, other = "2030-01-02T02:34:06Z", "2031-01-02T02:34:06Z"
	spec := func(availability swarm.NodeAvailability, until string) swarm.NodeSpec {
		s := swarm.NodeSpec{Availability: availability}
		s.Labels = map[string]string{"mine": "1"}
		if until != "" {
			s.Labels[LabelDrainUntil.Name] = until
		}
		return s
	}
	const drain, active, pause = swarm.NodeAvailabilityDrain, swarm.NodeAvailabilityActive, swarm.NodeAvailabilityPause
	tests := []struct {
		name      string
		old, next swarm.NodeSpec
		want      string // label, or "refused"
	}{
		{"a label that is added to a drained node", spec(drain, ""), spec(drain, until), until},
		{"or to one that is to be drained", spec(active, ""), spec(drain, until), until},
		{"the spec of a drained node, with something else changed", spec(drain, until), spec(drain, until), until},
		{"another time", spec(drain, until), spec(drain, other), other},
		{"for good", spec(drain, until), spec(drain, ""), ""},
		{"active again, by a client that sends back what it read", spec(drain, until), spec(active, until), ""},
		{"or paused", spec(drain, until), spec(pause, until), ""},
		{"a time for a node that is active", spec(active, ""), spec(active, until), "refused"},
		{"or paused while it gets another time", spec(drain, until), spec(pause, other), "refused"},
	}
	for _, test := range tests {
		got, err := CheckDrainUntil(test.old, test.next)
		switch {
		case test.want == "refused":
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %+v, %v", test.name, got, err)
			}
		case err != nil || got.Labels[LabelDrainUntil.Name] != test.want || got.Availability != test.next.Availability || got.Labels["mine"] != "1":
			t.Errorf("%s: %+v, %v; want the label %q", test.name, got, err, test.want)
		}
	}
}
