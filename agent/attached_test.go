package agent

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A place is given back when its container, which was there, is gone; and when none came in time, so
// that what went while the agent was away is found, but not what is only being made.
func TestHeldPlaces_GoneWhenTheContainerIs(t *testing.T) {
	addr := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	list := []attachedPlace{{"a", "w", []netip.Addr{addr("10.0.0.2"), addr("fd00::2")}}, {"b", "w", []netip.Addr{addr("10.0.0.3")}}}
	begin := time.Unix(1000, 0)
	h := heldPlaces{}
	for _, step := range []struct {
		after time.Duration
		have  []string
		want  []string
	}{
		{0, nil, nil},
		{5 * time.Second, []string{"10.0.0.2"}, nil},
		{10 * time.Second, []string{"10.0.0.2"}, nil},
		{15 * time.Second, nil, []string{"a"}},
		{20 * time.Second, []string{"fd00::2"}, nil},
		{attachGrace - time.Second, []string{"10.0.0.2"}, nil},
		{attachGrace, []string{"10.0.0.2"}, []string{"b"}},
	} {
		have := map[string]map[netip.Addr]bool{"w": {}, "other": {addr("10.0.0.3"): true}}
		for _, s := range step.have {
			have["w"][addr(s)] = true
		}
		var gone []string
		if h, gone = h.gone(list, have, begin.Add(step.after)); !slices.Equal(gone, step.want) {
			t.Errorf("after %s: %v are gone, want %v", step.after, gone, step.want)
		}
	}
	if h, _ = h.gone(list[:1], nil, begin); len(h) != 1 {
		t.Errorf("%v are remembered", h)
	}
}
