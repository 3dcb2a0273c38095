package manager

import (
	"testing"
	"time"

	"skep/cluster"
)

// ringOf writes the keys as letters, with a mark behind one that is only understood.
func ringOf(c *cluster.Cluster) string {
	text := ""
	for _, key := range c.GossipKeys {
		text += string(key)
	}
	if c.NextGossipKey {
		text += "*"
	}
	return text
}

func TestNextRing(t *testing.T) {
	const period = 12 * time.Hour
	const quiet = period - 10*time.Minute
	noted := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name   string
		keys   string
		next   bool
		age    time.Duration
		period time.Duration
		want   string
		wait   time.Duration
	}{
		{"a new cluster waits", "a", false, 0, period, "", quiet},
		{"and until the last moment", "a", false, quiet - 1, period, "", 1},
		{"then a new key comes last", "a", false, quiet, period, "an*", 0},
		{"where it waits for all to have it", "an", true, 0, period, "", 10 * time.Minute},
		{"until the last moment", "an", true, 10*time.Minute - 1, period, "", 1},
		{"then it sends, and the old one is understood", "an", true, 10 * time.Minute, period, "na", 0},
		{"the second rotation keeps all", "ba", false, quiet, period, "ban*", 0},
		{"and uses the last", "ban", true, 10 * time.Minute, period, "nba", 0},
		{"the third drops the oldest", "cba", false, quiet, period, "cbn*", 0},
		{"a leader that comes late takes one step at a time", "cba", false, 30 * 24 * time.Hour, period, "cbn*", 0},
		{"also with the second one", "cbn", true, 30 * 24 * time.Hour, period, "ncb", 0},
		{"a time ahead of this leader's clock is noted anew", "cba", false, -time.Millisecond, period, "cba", 0},
		{"and a new key waits as long as ever", "cbn", true, -time.Hour, period, "cbn*", 0},
		{"a ring that is too long gets short", "edcba", false, quiet, period, "edn*", 0},
		{"a short period leaves a third for all to get the key", "an", true, 0, time.Minute, "", 20 * time.Second},
		{"and is kept", "a", false, 0, time.Minute, "", 40 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := &cluster.Cluster{ID: "c", WorkerToken: "kept", GossipKeysAt: noted, NextGossipKey: test.next}
			for _, key := range test.keys {
				c.GossipKeys = append(c.GossipKeys, []byte(string(key)))
			}
			before, now := ringOf(c), noted.Add(test.age)
			got, wait := nextRing(c, now, test.period, func() []byte { return []byte("n") })
			if ringOf(c) != before || !c.GossipKeysAt.Equal(noted) {
				t.Error("the record that was given has changed")
			}
			if wait != test.wait {
				t.Errorf("looks again after %v, want %v", wait, test.wait)
			}
			if got == nil {
				if test.want != "" {
					t.Errorf("does nothing, want ring %s", test.want)
				}
				return
			}
			if ringOf(got) != test.want {
				t.Errorf("ring %s, want %q", ringOf(got), test.want)
			}
			if !got.GossipKeysAt.Equal(now) || got.WorkerToken != "kept" {
				t.Errorf("noted %v instead of %v, token %q", got.GossipKeysAt, now, got.WorkerToken)
			}
		})
	}
	t.Run("a record without a time gets one", func(t *testing.T) {
		got, _ := nextRing(&cluster.Cluster{GossipKeys: [][]byte{{'a'}}}, noted, period, nil)
		if got == nil || ringOf(got) != "a" || !got.GossipKeysAt.Equal(noted) {
			t.Errorf("got %+v", got)
		}
	})
}

// TestNextRing_EachKeySendsForOnePeriod plays many rotations, with a leader that
// looks late now and then, and asks what members rely on.
func TestNextRing_EachKeySendsForOnePeriod(t *testing.T) {
	const period = time.Hour
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	c := &cluster.Cluster{GossipKeys: [][]byte{{'a'}}, GossipKeysAt: now}
	added := byte('a')
	newKey := func() []byte { added++; return []byte{added} }
	sends, since := "a", now
	known := map[string]time.Time{"a": now}
	stoppedSending := map[string]time.Time{}
	for step := range 40 {
		next, wait := nextRing(c, now, period, newKey)
		if next == nil {
			if wait <= 0 {
				t.Fatalf("step %d: nothing to do, and no time to wait", step)
			}
			now = now.Add(wait + time.Duration(step%3)*time.Second)
			continue
		}
		if len(next.GossipKeys) > maxGossipKeys {
			t.Fatalf("%d keys", len(next.GossipKeys))
		}
		held := map[string]bool{}
		for _, key := range next.GossipKeys {
			held[string(key)] = true
			if _, ok := known[string(key)]; !ok {
				known[string(key)] = now
			}
		}
		for key, stopped := range stoppedSending {
			if !held[key] {
				if kept := now.Sub(stopped); kept < period {
					t.Errorf("key %s was dropped %v after it sent last", key, kept)
				}
				delete(stoppedSending, key)
			}
		}
		if first := string(next.GossipKeys[0]); first != sends {
			if waited := now.Sub(known[first]); waited < maxSpread {
				t.Errorf("key %s sends %v after it was added", first, waited)
			}
			if sent := now.Sub(since); sent < period || sent > period+10*time.Second {
				t.Errorf("key %s sent for %v", sends, sent)
			}
			stoppedSending[sends] = now
			sends, since = first, now
		}
		c = next
	}
	if sends < "f" {
		t.Errorf("only %s sends after 40 steps", sends)
	}
}
