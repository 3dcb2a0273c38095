package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"skep/cluster"
	"skep/cluster/gossip/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testPort = 17946

func key(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

// addr gives each test its own addresses.
func addr(net, host int) string { return fmt.Sprintf("127.0.%d.%d", net, host) }

func start(t *testing.T, config Config) *Gossip {
	t.Helper()
	if config.ClusterID == "" {
		config.ClusterID = "cluster1"
	}
	if config.Keys == nil {
		config.Keys = [][]byte{key(1)}
	}
	config.Port = testPort
	g, err := Start(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// swarm starts n members on 127.0.network.1 and up and waits until all see all.
func swarm(t *testing.T, network, n int) []*Gossip {
	t.Helper()
	all := make([]*Gossip, n)
	for i := range all {
		all[i] = start(t, Config{NodeID: fmt.Sprintf("node%d", i+1), BindAddr: addr(network, i+1)})
	}
	for _, g := range all[1:] {
		if err := g.Join(t.Context(), []cluster.Member{{NodeID: "node1", Addr: addr(network, 1)}}); err != nil {
			t.Fatal(err)
		}
	}
	// The news of a join may miss one, who hears of it when lists are compared, with
	// somebody who knows.
	for _, g := range all {
		await(t, 5*exchangeInterval, g, func(members []cluster.Member) bool { return len(members) == n })
	}
	return all
}

// await waits for a condition on the members, woken by Changed alone, so that a
// change without a signal fails the test.
func await(t *testing.T, limit time.Duration, g *Gossip, ok func([]cluster.Member) bool) time.Duration {
	t.Helper()
	began := time.Now()
	deadline := time.After(limit)
	for !ok(g.Members()) {
		select {
		case <-g.Changed():
		case <-deadline:
			t.Fatalf("%s after %v: %v", g.config.NodeID, limit, g.Members())
		}
	}
	return time.Since(began)
}

func has(members []cluster.Member, id string) bool {
	return slices.ContainsFunc(members, func(m cluster.Member) bool { return m.NodeID == id && !m.Left })
}

// here counts those that haven't left.
func here(members []cluster.Member) (count int) {
	for _, m := range members {
		if !m.Left {
			count++
		}
	}
	return count
}

func TestMembers_IncludeSelfAndAddress(t *testing.T) {
	all := swarm(t, 30, 2)
	want := []cluster.Member{{NodeID: "node1", Addr: "127.0.30.1:17946"}, {NodeID: "node2", Addr: "127.0.30.2:17946"}}
	for _, g := range all {
		if got := g.Members(); !slices.Equal(got, want) {
			t.Errorf("%s sees %v, want %v", g.config.NodeID, got, want)
		}
	}
}

func TestAdvertiseAddr_MayDiffer(t *testing.T) {
	g := start(t, Config{NodeID: "node1", BindAddr: "127.0.31.1", AdvertiseAddr: "127.0.31.9"})
	if got := g.Members(); len(got) != 1 || got[0].Addr != "127.0.31.9:17946" {
		t.Errorf("members %v", got)
	}
}

// TestCrash_NoticedByAll measures how long the others list a member that stopped
// without a word: about a second.
func TestCrash_NoticedByAll(t *testing.T) {
	const rounds, limit = 3, 2500 * time.Millisecond
	var took []time.Duration
	for round := range rounds {
		t.Run(fmt.Sprintf("round %d", round+1), func(t *testing.T) {
			all := swarm(t, 32, 5)
			began := time.Now()
			if err := all[4].Close(); err != nil {
				t.Fatal(err)
			}
			for _, g := range all[:4] {
				await(t, 10*time.Second, g, func(m []cluster.Member) bool { return !has(m, "node5") })
			}
			took = append(took, time.Since(began))
		})
	}
	slices.Sort(took)
	t.Logf("gone on all four after %v", took)
	// The median, since other tests may keep the machine busy; TestCrash_ManyTimes
	// has the worst case.
	if len(took) != rounds || took[rounds/2] > limit {
		t.Errorf("gone after %v, want less than %v", took, limit)
	}
}

// TestCrash_SuspectFirst holds states.go against memberlist: a dead member is
// listed as suspect before it is given up, and Changed says so.
func TestCrash_SuspectFirst(t *testing.T) {
	all := swarm(t, 33, 3)
	if err := all[2].Close(); err != nil {
		t.Fatal(err)
	}
	await(t, 5*time.Second, all[0], func(members []cluster.Member) bool {
		return slices.ContainsFunc(members, func(m cluster.Member) bool { return m.NodeID == "node3" && m.Suspect })
	})
	for _, m := range all[0].Members() {
		if m.Suspect && m.NodeID != "node3" {
			t.Errorf("%s is suspect, too", m.NodeID)
		}
	}
	await(t, 5*time.Second, all[0], func(members []cluster.Member) bool { return !has(members, "node3") })
}

func TestLeave_SeenAtOnce(t *testing.T) {
	all := swarm(t, 34, 5)
	began := time.Now()
	if err := all[4].Leave(0); err != nil {
		t.Fatal(err)
	}
	for _, g := range all[:4] {
		await(t, 2*time.Second, g, func(m []cluster.Member) bool { return !has(m, "node5") })
	}
	took := time.Since(began)
	for _, g := range all[:4] { // It isn't taken for one that died.
		if !slices.ContainsFunc(g.Members(), func(m cluster.Member) bool { return m.NodeID == "node5" && m.Left }) {
			t.Errorf("%s sees %v", g.config.NodeID, g.Members())
		}
	}
	t.Logf("seen by all after %v", took)
	if took > time.Second {
		t.Errorf("leave seen by all after %v", took)
	}
	if err := all[4].Join(t.Context(), []cluster.Member{{NodeID: "node1", Addr: addr(34, 1)}}); err == nil {
		t.Error("joined after leaving")
	}
	// In any order and more than once.
	for range 2 {
		if err := all[4].Close(); err != nil {
			t.Error(err)
		}
		if err := all[4].Leave(0); err != nil {
			t.Error(err)
		}
	}
}

func TestRestart_ComesBack(t *testing.T) {
	all := swarm(t, 35, 3)
	if err := all[2].Close(); err != nil {
		t.Fatal(err)
	}
	await(t, 5*time.Second, all[0], func(m []cluster.Member) bool { return !has(m, "node3") })
	again := start(t, Config{NodeID: "node3", BindAddr: addr(35, 3)})
	if err := again.Join(t.Context(), []cluster.Member{{NodeID: "node1", Addr: addr(35, 1)}, {NodeID: "node3", Addr: addr(35, 3)}}); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gossip{all[0], all[1], again} {
		await(t, 5*time.Second, g, func(m []cluster.Member) bool { return len(m) == 3 })
	}
}

// TestJoin_TriesAgain: the seed isn't there yet when Join is called.
func TestJoin_TriesAgain(t *testing.T) {
	g := start(t, Config{NodeID: "node1", BindAddr: addr(36, 1), RejoinEvery: 50 * time.Millisecond})
	if err := g.Join(t.Context(), []cluster.Member{{NodeID: "node2", Addr: addr(36, 2)}}); err == nil {
		t.Fatal("joined nobody")
	}
	start(t, Config{NodeID: "node2", BindAddr: addr(36, 2)})
	await(t, 5*time.Second, g, func(m []cluster.Member) bool { return len(m) == 2 })
}

func TestJoin_EndsWithContext(t *testing.T) {
	// A listener that accepts and never answers.
	silent, err := net.Listen("tcp", net.JoinHostPort(addr(37, 2), fmt.Sprint(testPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	g := start(t, Config{NodeID: "node1", BindAddr: addr(37, 1)})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := g.Join(ctx, []cluster.Member{{NodeID: "node2", Addr: addr(37, 2)}}); err == nil {
		t.Error("joined a node that doesn't answer")
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("returned after %v", took)
	}
	silent.Close()
}

func TestJoin_RefusesBadSeeds(t *testing.T) {
	g := start(t, Config{NodeID: "node1", BindAddr: addr(38, 1)})
	for _, seed := range []cluster.Member{{Addr: addr(38, 2)}, {NodeID: "a/b", Addr: addr(38, 2)}, {NodeID: "node2", Addr: "host.example"}, {NodeID: "node2"}} {
		if err := g.Join(t.Context(), []cluster.Member{seed}); err == nil {
			t.Errorf("joined by %+v", seed)
		}
	}
	if err := g.Join(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestStart_RefusesBadConfig(t *testing.T) {
	good := Config{NodeID: "node1", ClusterID: "cluster1", BindAddr: addr(39, 1), Port: testPort, Keys: [][]byte{key(1)}}
	for name, spoil := range map[string]func(*Config){
		"no node":       func(c *Config) { c.NodeID = "" },
		"no cluster":    func(c *Config) { c.ClusterID = "" },
		"no key":        func(c *Config) { c.Keys = nil },
		"short key":     func(c *Config) { c.Keys = [][]byte{key(1)[:16]} },
		"key twice":     func(c *Config) { c.Keys = [][]byte{key(1), key(1)} },
		"host name":     func(c *Config) { c.BindAddr = "localhost" },
		"bad advertise": func(c *Config) { c.AdvertiseAddr = "host:7946" },
		"long node":     func(c *Config) { c.NodeID = strings.Repeat("n", guard.MaxName+1) },
		"long cluster":  func(c *Config) { c.ClusterID = strings.Repeat("c", 256) },
		"foreign IP":    func(c *Config) { c.BindAddr = "192.0.2.1" },
	} {
		t.Run(name, func(t *testing.T) {
			config := good
			spoil(&config)
			if g, err := Start(config); err == nil {
				t.Error("started")
				g.Close()
			} else if strings.Contains(err.Error(), string(key(1)[:4])) {
				t.Errorf("key in error %q", err)
			}
		})
	}
}

// TestSetKeys_KeepsMembers rotates as managers would: everyone understands the new
// key, then everyone sends with it, then the old one goes; in the end a node with
// only the old key can't join and one with only the new key can.
func TestSetKeys_KeepsMembers(t *testing.T) {
	all := swarm(t, 40, 5)
	old, fresh := key(1), key(2)
	for _, keys := range [][][]byte{{old, fresh}, {fresh, old}, {fresh}} {
		for _, g := range all {
			if err := g.SetKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
		// Longer than it takes to give up a member that doesn't answer any more. One may
		// be suspect for a moment on a busy machine, but not for good.
		quiet := time.After(1500 * time.Millisecond)
		for waiting := true; waiting; {
			select {
			case <-quiet:
				waiting = false
			case <-time.After(20 * time.Millisecond):
			}
			for _, g := range all {
				if members := g.Members(); len(members) != 5 {
					t.Fatalf("%s lost members: %v", g.config.NodeID, members)
				}
			}
		}
		for _, g := range all {
			await(t, 5*time.Second, g, func(members []cluster.Member) bool {
				return len(members) == 5 && !slices.ContainsFunc(members, func(m cluster.Member) bool { return m.Suspect })
			})
		}
	}
	late := start(t, Config{NodeID: "late", BindAddr: addr(40, 6), Keys: [][]byte{fresh}})
	if err := late.Join(t.Context(), []cluster.Member{{NodeID: "node1", Addr: addr(40, 1)}}); err != nil {
		t.Error(err)
	}
	outdated := start(t, Config{NodeID: "outdated", BindAddr: addr(40, 7), Keys: [][]byte{old}})
	if err := outdated.Join(t.Context(), []cluster.Member{{NodeID: "node1", Addr: addr(40, 1)}}); err == nil {
		t.Error("joined with the old key")
	}
}

func TestSetKeys_OrdersAndRefuses(t *testing.T) {
	g := start(t, Config{NodeID: "node1", BindAddr: addr(41, 1), Keys: [][]byte{key(1), key(2), key(3)}})
	check := func(want []byte) {
		t.Helper()
		for b := byte(1); b <= 5; b++ {
			var other guard.Ring
			if err := other.Set([][]byte{key(b)}); err != nil {
				t.Fatal(err)
			}
			if _, err := g.ring.Open(other.Seal(nil, nil, nil), nil); (err == nil) != slices.Contains(want, b) {
				t.Errorf("ring %v opens what key %d sealed: %v", want, b, err)
			}
			if _, err := other.Open(g.ring.Seal(nil, nil, nil), nil); (err == nil) != (b == want[0]) {
				t.Errorf("key %d opens what ring %v sealed: %v", b, want, err)
			}
		}
	}
	for _, want := range [][]byte{{2, 1, 3}, {4, 2}, {5}, {1, 2, 3, 4, 5}, {3, 5, 1}} {
		var keys [][]byte
		for _, b := range want {
			keys = append(keys, key(b))
		}
		if err := g.SetKeys(keys); err != nil {
			t.Fatal(err)
		}
		check(want)
	}
	for _, keys := range [][][]byte{nil, {key(1)[:31]}, {key(9), key(9)}} {
		if err := g.SetKeys(keys); err == nil {
			t.Errorf("took %d keys", len(keys))
		}
	}
	check([]byte{3, 5, 1}) // a refused call changes nothing
}

// TestForeign_IsIgnored: neither another key nor another cluster's label gets a
// node in, by stream or by packet, in either direction.
func TestForeign_IsIgnored(t *testing.T) {
	home := start(t, Config{NodeID: "home", BindAddr: addr(42, 1)})
	for i, config := range []Config{
		{NodeID: "key", Keys: [][]byte{key(9)}},
		{NodeID: "label", ClusterID: "cluster2"},
	} {
		config.BindAddr = addr(42, 2+i)
		stranger := start(t, config)
		if err := stranger.Join(t.Context(), []cluster.Member{{NodeID: "home", Addr: addr(42, 1)}}); err == nil {
			t.Errorf("%s joined", config.NodeID)
		}
		if err := home.Join(t.Context(), []cluster.Member{{NodeID: config.NodeID, Addr: config.BindAddr}}); err == nil {
			t.Errorf("was joined to %s", config.NodeID)
		}
		if got := stranger.Members(); len(got) != 1 {
			t.Errorf("%s sees %v", config.NodeID, got)
		}
	}
	if got := home.Members(); len(got) != 1 {
		t.Errorf("home sees %v", got)
	}
}

// TestChanged_Conflates: nobody listens while much happens, nothing blocks, and one
// signal is there in the end.
func TestChanged_Conflates(t *testing.T) {
	all := swarm(t, 43, 5)
	select {
	case <-all[0].Changed():
	default:
	}
	for _, g := range all[2:] {
		if err := g.Leave(0); err != nil {
			t.Fatal(err)
		}
	}
	await(t, 2*time.Second, all[1], func(m []cluster.Member) bool { return here(m) == 2 })
	await(t, 2*time.Second, all[0], func(m []cluster.Member) bool { return here(m) == 2 })
}

type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func TestLog_LevelsAndLimit(t *testing.T) {
	var out lines
	now := time.Unix(0, 0)
	w := newLogWriter(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), func() time.Time { return now })
	for _, line := range []string{"[DEBUG] memberlist: quiet", "[INFO] memberlist: i", "[WARN] memberlist: w", "[ERR] memberlist: e", "plain", "[WARN] memberlist: " + notEncrypted} {
		fmt.Fprintln(w, line)
	}
	for _, want := range []string{"level=DEBUG msg=gossip said=i", "level=DEBUG msg=gossip said=w", "level=DEBUG msg=gossip said=e", "level=DEBUG msg=gossip said=plain"} {
		if !strings.Contains(out.buf.String(), want) {
			t.Errorf("no %q in %s", want, out.buf.String())
		}
	}
	if strings.Contains(out.buf.String(), "quiet") {
		t.Error("debug line let through")
	}
	if strings.Contains(out.buf.String(), notEncrypted) {
		t.Error("said that nothing is encrypted")
	}
	for range 1000 {
		fmt.Fprintln(w, "[ERR] memberlist: flood")
	}
	if n := strings.Count(out.buf.String(), "flood"); n != logBurst-4 {
		t.Errorf("%d lines of a flood let through", n)
	}
	now = now.Add(logWindow)
	fmt.Fprintln(w, "[INFO] memberlist: after")
	if !strings.Contains(out.buf.String(), "count=984") || !strings.Contains(out.buf.String(), "said=after") {
		t.Errorf("no account of dropped lines: %s", out.buf.String())
	}
}

// TestLog_WhatOperatorsSee writes what memberlist says of nodes that are far away, gone
// or behind a firewall.
func TestLog_WhatOperatorsSee(t *testing.T) {
	var out lines
	now := time.Unix(0, 0)
	w := newLogWriter(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
	firewall := "Was able to connect to n2 over TCP but UDP probes failed, network may be misconfigured"
	for range 30 {
		for _, line := range []string{
			"[ERR] memberlist: Failed fallback TCP ping: timeout 180ms: read tcp 10.0.0.1:7946->10.0.0.2:7946: i/o timeout",
			"[ERR] memberlist: Failed to send UDP ping: write udp: network is unreachable", "[ERR] memberlist: Push/Pull with n2 failed: dial tcp: connection refused",
			"[WARN] memberlist: Refuting a suspect message (from: n2)", "[INFO] memberlist: Suspect n2 has failed, no acks received",
			"[WARN] memberlist: " + firewall,
		} {
			fmt.Fprintln(w, line)
		}
		now = now.Add(time.Second)
	}
	if said := out.buf.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "level=WARN") || !strings.Contains(said, firewall) {
		t.Errorf("operators see:\n%s", said)
	}
	now = now.Add(sayAgain)
	fmt.Fprintln(w, "[WARN] memberlist: "+firewall)
	if n := strings.Count(out.buf.String(), firewall); n != 2 {
		t.Errorf("said %d times after an hour more", n)
	}
}

// TestForeign_PacketsIgnored: a ping is answered only when it is encrypted with a
// key of the ring and carries the cluster's label; noise changes nothing.
func TestForeign_PacketsIgnored(t *testing.T) {
	home := start(t, Config{NodeID: "home", BindAddr: addr(44, 1)})
	target := &net.UDPAddr{IP: net.ParseIP(addr(44, 1)), Port: testPort}
	for i, from := range []struct {
		config   Config
		answered bool
	}{
		{Config{NodeID: "friend"}, true},
		{Config{NodeID: "key", Keys: [][]byte{key(9)}}, false},
		{Config{NodeID: "label", ClusterID: "cluster2"}, false},
	} {
		from.config.BindAddr = addr(44, 2+i)
		g := start(t, from.config)
		_, err := g.list.Ping("home", target)
		if answered := err == nil; answered != from.answered {
			t.Errorf("ping of %s answered: %v, want %v (%v)", from.config.NodeID, answered, from.answered, err)
		}
	}
	noise, err := net.DialUDP("udp", nil, target)
	if err != nil {
		t.Fatal(err)
	}
	defer noise.Close()
	label := append([]byte{244, 8}, "cluster1"...)
	for _, packet := range [][]byte{{}, {0}, {244}, {244, 0}, {244, 255, 1}, label, append(label, 1), append(label, bytes.Repeat([]byte{1}, 1400)...), bytes.Repeat([]byte{7}, 1400)} {
		if _, err := noise.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := net.Dial("tcp", target.String())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	stream.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(stream, "%sGET / HTTP/1.1\r\n\r\n", label)
	stream.(*net.TCPConn).CloseWrite()
	stream.Read(make([]byte, 1024)) // returns when the member has made up its mind
	// The friend's ping told of the friend, too; nothing else came in.
	if got := home.Members(); len(got) != 2 || !has(got, "friend") {
		t.Errorf("members %v", got)
	}
}
