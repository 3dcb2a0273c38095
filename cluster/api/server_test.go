package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"

	"skep/cluster"
	"skep/cluster/timeline"
)

func TestPing(t *testing.T) {
	b := newBench(t)
	b.manager.set(func(m *fakeManager) { m.none = true; m.fresh = cluster.ErrNoLeader }) // it must not be asked
	for _, path := range []string{"/_ping", "/v1.41/_ping"} {
		got := b.do("GET", path, nil).want(t, 200, "OK")
		for key, want := range map[string]string{
			"Api-Version": "1.51", "Ostype": "linux", "Swarm": "active/manager", "Docker-Experimental": "false",
			"Server": "Docker/0.1.0-test (linux)", "Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache",
		} {
			if got.header.Get(key) != want {
				t.Errorf("header %s is %q, want %q", key, got.header.Get(key), want)
			}
		}
	}
	if got := b.do("HEAD", "/_ping", nil).want(t, 200, ""); got.body != "" || got.header.Get("Content-Length") != "0" {
		t.Errorf("HEAD: %+v", got)
	}
	b.node.info.ControlAvailable = false
	if got := b.do("GET", "/_ping", nil).header.Get("Swarm"); got != "active/worker" {
		t.Error(got)
	}
	b.node.info.LocalNodeState = swarm.LocalNodeStateInactive
	if got := b.do("GET", "/_ping", nil).header.Get("Swarm"); got != "inactive" {
		t.Error(got)
	}
}

func TestVersions(t *testing.T) {
	b := newBench(t)
	for _, version := range []string{"1.24", "1.41", "1.50", "1.51"} {
		b.do("GET", "/v"+version+"/nodes", nil).want(t, 200, "[")
	}
	b.do("GET", "/v1.52/nodes", nil).want(t, 400, "client version 1.52 is too new. Maximum supported API version is 1.51")
	b.do("GET", "/v99999999999999999999/nodes", nil).want(t, 400, "too new")
	b.do("GET", "/v1.23/nodes", nil).want(t, 400, "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version")
	b.do("GET", "/v1.52/containers/json", nil).want(t, 400, "too new")
	for _, path := range []string{"/v1.51/swarm/nonsense", "/services/a/b/c", "/nodes/", "/v1.51/tasks/x/y", "/_ping/x", "/skep"} {
		b.do("GET", path, nil).want(t, 404, "page not found")
	}
	b.do("PUT", "/services/create", nil).want(t, 404, "page not found")
	b.do("GET", "/nodes?filters=%zz", nil).want(t, 400, "invalid query")
}

func TestInfoAndVersionWithoutEngine(t *testing.T) {
	b := newBench(t)
	var info system.Info
	got := b.do("GET", "/info", nil).want(t, 200, "")
	got.into(t, &info)
	if info.Name != "n1" || info.Swarm.Nodes != 3 || info.Swarm.Managers != 1 || info.Swarm.Cluster.ID != "clusterid" || !info.Swarm.ControlAvailable {
		t.Fatalf("%+v", info.Swarm)
	}
	if len(info.Warnings) == 0 || !strings.Contains(info.Warnings[0], "no local Docker Engine") {
		t.Errorf("warnings %q", info.Warnings)
	}
	for _, secret := range []string{"SWMTKN", "canary", "JoinTokens"} {
		if strings.Contains(got.body, secret) {
			t.Errorf("info contains %s", secret)
		}
	}
	b.manager.set(func(m *fakeManager) { m.none = true })
	b.do("GET", "/info", nil).want(t, 200, "does not have a leader")
	var version types.Version
	b.do("GET", "/version", nil).want(t, 200, "").into(t, &version)
	if version.APIVersion != "1.51" || version.MinAPIVersion != "1.24" || version.Components[0].Name != "Engine" || version.Components[1].Name != "skep" {
		t.Fatalf("%+v", version)
	}
	// A node in no swarm has these too, and nothing of the cluster.
	b.node.manager, b.node.info = nil, swarm.Info{}
	b.do("GET", "/info", nil).want(t, 200, `"LocalNodeState":"inactive"`)
	b.do("GET", "/nodes", nil).want(t, 503, `This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.`)
	b.do("GET", "/skep/v1/status", nil).want(t, 503, "not a swarm manager")
	b.node.info.LocalNodeState = swarm.LocalNodeStateActive
	b.do("POST", "/services/create", spec("a")).want(t, 503, "Worker nodes can't be used to view or modify cluster state.")
	b.node.info.LocalNodeState = swarm.LocalNodeStateLocked
	b.do("GET", "/nodes", nil).want(t, 503, "Swarm is encrypted and needs to be unlocked")
}

func TestErrorStatuses(t *testing.T) {
	for err, want := range map[error]int{
		cluster.ErrInvalid: 400, cluster.ErrNotFound: 404, cluster.ErrExists: 409, cluster.ErrNameTaken: 409, cluster.ErrConflict: 500,
		cluster.ErrPrecondition: 400, cluster.ErrUnsupported: 501, cluster.ErrDenied: 403, cluster.ErrRemoved: 503, cluster.ErrNotManager: 503, cluster.ErrNotLeader: 503,
		cluster.ErrNoLeader: 503, cluster.ErrUnknownOutcome: 503, cluster.ErrUnavailable: 503, cluster.ErrLocked: 503,
		context.DeadlineExceeded: 503, errors.New("anything else"): 500, errTooLarge: 413, &passedOn{status: 418}: 418,
	} {
		if got := statusOf(fmt.Errorf("do something: %w", err)); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
	// An unknown outcome must never be taken for a refusal, whatever else it wraps.
	both := fmt.Errorf("%w: %w", cluster.ErrUnknownOutcome, cluster.ErrNotLeader)
	b := newBench(t)
	w := httptest.NewRecorder()
	b.server.writeError(w, httptest.NewRequest("POST", "/", nil), both)
	if w.Header().Get(notLeaderHeader) != "" || lostLeader(both) {
		t.Error("an unknown outcome is marked as certainly not done")
	}
}

func TestBodyLimit(t *testing.T) {
	b := newBench(t, func(c *Config) { c.MaxBody = 1000 })
	long := spec("web", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Args = []string{strings.Repeat("x", 1000)} })
	b.do("POST", "/services/create", long).want(t, 413, "request body too large: the limit is 1000 bytes")
	if b.view().ServiceCount() != 0 {
		t.Fatal("a service was made")
	}
	// The limit holds on every route that isn't the engine's.
	for _, route := range b.server.routes {
		path := strings.NewReplacer("{id}", "x", "{name}", "x").Replace(route.pattern)
		if got := b.do(route.method, path, strings.Repeat("x", 2000)); got.status != 413 {
			t.Errorf("%s %s takes a body of any size: %d", route.method, path, got.status)
		}
	}
}

func TestPanicIsAnswered(t *testing.T) {
	b := newBench(t)
	b.server.routes[0].handle = func(context.Context, *request) (response, error) { panic("canary") }
	if got := b.do("GET", "/_ping", nil).want(t, 500, "internal error"); strings.Contains(got.body, "canary") {
		t.Error("the client is told what panicked")
	}
	b.server.routes[0].handle = func(context.Context, *request) (response, error) {
		return response{stream: func(_ context.Context, w http.ResponseWriter) {
			io.WriteString(w, "half")
			panic("canary")
		}}, nil
	}
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("half an answer was ended as if it were whole")
		}
	}()
	b.do("GET", "/_ping", nil)
}

func TestSwarm(t *testing.T) {
	b := newBench(t)
	var before swarm.Swarm
	got := b.do("GET", "/swarm", nil).want(t, 200, "SWMTKN-1-")
	got.into(t, &before)
	if strings.Contains(got.body, "canary") || before.Spec.Name != "default" {
		t.Fatalf("%s", got.body)
	}
	update := func(query string, s swarm.Spec) answer {
		return b.do("POST", "/swarm/update?"+query, s)
	}
	version := func() string {
		var now swarm.Swarm
		b.do("GET", "/swarm", nil).into(t, &now)
		return fmt.Sprintf("version=%d", now.Version.Index)
	}
	update("version=7777", before.Spec).want(t, 500, "update out of sequence")
	update("", before.Spec).want(t, 400, "invalid swarm version ''")
	update(version()+"&rotateWorkerToken=perhaps", before.Spec).want(t, 400, "invalid value for rotateWorkerToken: perhaps")
	update(version()+"&rotateManagerUnlockKey=1", before.Spec).want(t, 400, "autolock is not turned on")
	for text, change := range map[string]func(*swarm.Spec){
		"modification of cluster name":    func(s *swarm.Spec) { s.Name = "other" },
		"minimum certificate expiry time": func(s *swarm.Spec) { s.CAConfig.NodeCertExpiry = 1 },
		"SigningCACert and SigningCAKey":  func(s *swarm.Spec) { s.CAConfig.SigningCAKey = "canary" },
		"ExternalCAs":                     func(s *swarm.Spec) { s.CAConfig.ExternalCAs = []*swarm.ExternalCA{{}} },
		"HeartbeatTick":                   func(s *swarm.Spec) { s.Raft.HeartbeatTick = 2 },
		"leave them at 10 and 1":          func(s *swarm.Spec) { s.Raft.ElectionTick = 3 },
		"KeepOldSnapshots":                func(s *swarm.Spec) { many := uint64(1001); s.Raft.KeepOldSnapshots = &many },
		"give 100ms to 1s, or 5s":         func(s *swarm.Spec) { s.Dispatcher.HeartbeatPeriod = 5 },
		"cannot be a negative duration":   func(s *swarm.Spec) { s.Dispatcher.HeartbeatPeriod = -5 },
		"TaskDefaults.LogDriver":          func(s *swarm.Spec) { s.TaskDefaults.LogDriver = &swarm.Driver{} },
	} {
		s := before.Spec
		change(&s)
		if got := update(version(), s); got.status != 400 && got.status != 501 || !strings.Contains(got.body, text) {
			t.Errorf("%s: %d %s", text, got.status, got.body)
		}
	}
	s := before.Spec
	limit := int64(7)
	s.Orchestration.TaskHistoryRetentionLimit = &limit
	if got := update(version()+"&rotateWorkerToken=true&rotateManagerToken=false", s).want(t, 200, ""); got.body != "" {
		t.Errorf("body %q", got.body)
	}
	var after swarm.Swarm
	b.do("GET", "/swarm", nil).into(t, &after)
	if after.JoinTokens.Worker == before.JoinTokens.Worker || after.JoinTokens.Manager != before.JoinTokens.Manager || *after.Spec.Orchestration.TaskHistoryRetentionLimit != 7 {
		t.Fatalf("%+v", after)
	}
	if old, _ := cluster.ParseJoinToken(after.JoinTokens.Worker); old.Digest != testDigest {
		t.Error("the CA's digest was lost")
	}
	b.do("GET", "/swarm/unlockkey", nil).want(t, 200, `{"UnlockKey":""}`)
	b.do("POST", "/swarm/unlock", swarm.UnlockRequest{UnlockKey: "k"}).want(t, 409, "swarm is not locked")
}

// TestUnlockKey: the key comes and goes with autolock, changes only when it is asked
// to, and is shown nowhere but where it is asked for.
func TestUnlockKey(t *testing.T) {
	b := newBench(t)
	update := func(query string, change func(*swarm.Spec)) answer {
		var now swarm.Swarm
		b.do("GET", "/swarm", nil).into(t, &now)
		change(&now.Spec)
		return b.do("POST", fmt.Sprintf("/swarm/update?version=%d&%s", now.Version.Index, query), now.Spec)
	}
	key := func() string {
		var shown swarm.UnlockKeyResponse
		b.do("GET", "/swarm/unlockkey", nil).want(t, 200, "").into(t, &shown)
		return shown.UnlockKey
	}
	lock := func(on bool) func(*swarm.Spec) {
		return func(s *swarm.Spec) { s.EncryptionConfig.AutoLockManagers = on }
	}
	same := func(*swarm.Spec) {}
	update("", lock(true)).want(t, 200, "")
	first := key()
	if _, err := cluster.ParseUnlockKey(first); err != nil {
		t.Fatalf("%q: %v", first, err)
	}
	for _, path := range []string{"/swarm", "/info", "/nodes", "/skep/v1/status"} {
		if strings.Contains(b.do("GET", path, nil).body, first) {
			t.Errorf("%s shows the key", path)
		}
	}
	update("rotateWorkerToken=1", same).want(t, 200, "")
	if key() != first {
		t.Error("another change changed the key")
	}
	update("rotateManagerUnlockKey=1", same).want(t, 200, "")
	if second := key(); second == first || second == "" {
		t.Error("the key wasn't rotated")
	}
	update("rotateManagerUnlockKey=1", lock(false)).want(t, 400, "autolock is not turned on")
	update("", lock(false)).want(t, 200, "")
	if key() != "" {
		t.Error("a key is left")
	}

	unlock := cluster.NewUnlockKey(&lockedRandom{next: 1})
	b.node.manager, b.node.info, b.node.unlock = nil, swarm.Info{LocalNodeState: swarm.LocalNodeStateLocked, NodeID: nodeID(1)}, unlock
	try := func(text string) answer { return b.do("POST", "/swarm/unlock", swarm.UnlockRequest{UnlockKey: text}) }
	for _, route := range [][2]string{{"GET", "/swarm"}, {"GET", "/swarm/unlockkey"}, {"POST", "/swarm/init"}, {"POST", "/swarm/join"}, {"POST", "/swarm/update"},
		{"GET", "/services"}, {"POST", "/services/create"}, {"GET", "/tasks"}, {"GET", "/nodes"}, {"GET", "/skep/v1/status"}} {
		b.do(route[0], route[1], nil).want(t, 503, "Swarm is encrypted and needs to be unlocked before it can be used.")
	}
	if got := b.do("GET", "/_ping", nil).want(t, 200, "OK"); got.header.Get("Swarm") != "locked" {
		t.Errorf("ping says %q", got.header.Get("Swarm"))
	}
	b.do("GET", "/version", nil).want(t, 200, "")
	b.do("GET", "/info", nil).want(t, 200, `"LocalNodeState":"locked"`)
	try(unlock.Text()[:30]).want(t, 400, "invalid unlock key: want SWMKEY-1-")
	try(strings.ToLower(unlock.Text())).want(t, 400, "invalid unlock key")
	try(first).want(t, 401, "swarm could not be unlocked: invalid key provided")
	try(unlock.Text()).want(t, 200, "")
	try(unlock.Text()).want(t, 409, "swarm is not locked")
	b.node.info = swarm.Info{}
	try(unlock.Text()).want(t, 503, "This node is not a swarm manager.")
}

func TestInitJoinLeave(t *testing.T) {
	b := newBench(t)
	init := swarm.InitRequest{ListenAddr: "0.0.0.0:2377", AdvertiseAddr: "127.0.1.1", SubnetSize: 24}
	if got := b.do("POST", "/swarm/init", init).want(t, 200, "").body; strings.TrimSpace(got) != `"node1"` {
		t.Fatal(got)
	}
	if b.node.init.AdvertiseAddr != "127.0.1.1" || b.node.init.Spec.Name != "default" {
		t.Fatalf("%+v", b.node.init)
	}
	pools := init
	pools.DataPathPort, pools.DataPathAddr, pools.DefaultAddrPool, pools.SubnetSize = 4790, "eth1", []string{"10.20.0.0/16"}, 26
	b.do("POST", "/swarm/init", pools).want(t, 200, "")
	if got := b.node.init; got.DataPathPort != 4790 || got.DataPathAddr != "eth1" || got.SubnetSize != 26 || len(got.DefaultAddrPool) != 1 {
		t.Errorf("%+v", got)
	}
	b.do("POST", "/v1.38/swarm/init", pools).want(t, 200, "") // whose clients can't have meant it
	if got := b.node.init; got.DataPathPort != 0 || len(got.DefaultAddrPool) > 0 || got.SubnetSize != 0 {
		t.Errorf("%+v", got)
	}
	bad := init
	bad.Availability = "sometimes"
	b.do("POST", "/swarm/init", bad).want(t, 400, "invalid Availability")
	b.node.err = fail(cluster.ErrUnavailable, textAlreadySwarm)
	b.do("POST", "/swarm/init", init).want(t, 503, "already part of a swarm")
	b.node.err = nil

	token := cluster.JoinToken{Digest: testDigest, Secret: strings.Repeat("w", 25)}.String()
	b.do("POST", "/swarm/join", swarm.JoinRequest{JoinToken: token}).want(t, 400, "at least 1 RemoteAddr")
	if got := b.do("POST", "/swarm/join", swarm.JoinRequest{RemoteAddrs: []string{"a"}, JoinToken: "SWMTKN-1-canary"}).want(t, 400, "invalid join token"); strings.Contains(got.body, "canary") {
		t.Error("the token is in the error")
	}
	if got := b.do("POST", "/swarm/join", swarm.JoinRequest{RemoteAddrs: []string{"127.0.1.1:2377"}, JoinToken: token}).want(t, 200, ""); got.body != "" {
		t.Error(got.body)
	}
	b.do("POST", "/swarm/join", swarm.JoinRequest{RemoteAddrs: []string{"127.0.1.1:2377"}}).want(t, 400, "a join token is necessary")
	// Docker's order: a member says that it is one, others want to know where to listen.
	b.do("POST", "/swarm/init", swarm.InitRequest{}).want(t, 200, "")
	member := b.node.info
	b.node.info = swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive}
	b.do("POST", "/swarm/init", swarm.InitRequest{AdvertiseAddr: "127.0.1.1"}).want(t, 400, `invalid ListenAddr \"\": invalid empty address`)
	b.do("POST", "/swarm/join", swarm.JoinRequest{RemoteAddrs: []string{"127.0.1.1:2377"}, JoinToken: token}).want(t, 400, "invalid empty address")
	b.do("POST", "/swarm/init", init).want(t, 200, "")
	b.do("POST", "/swarm/join", swarm.JoinRequest{ListenAddr: "127.0.1.2", RemoteAddrs: []string{"127.0.1.1:2377"}, JoinToken: token}).want(t, 200, "")
	b.node.info = member
	b.do("POST", "/swarm/leave?force=1", nil).want(t, 200, "")
	if !b.node.force || b.node.join.RemoteAddrs[0] != "127.0.1.1:2377" {
		t.Errorf("%+v", b.node)
	}
	b.do("POST", "/swarm/leave?force=False", nil).want(t, 200, "")
	if !b.node.force { // moby takes any word but 0, no, false, none for yes: case doesn't matter
		return
	}
	t.Error("False is taken for yes")
}

func TestWithoutSecretsConfigsNetworks(t *testing.T) {
	b := newBench(t)
	for _, kind := range []string{"secret", "config"} {
		if got := b.do("GET", "/"+kind+"s?filters={\"name\":[\"a\"]}", nil).want(t, 200, "").body; strings.TrimSpace(got) != "[]" {
			t.Error(got)
		}
		b.do("GET", "/"+kind+"s?filters={\"x\":[\"a\"]}", nil).want(t, 400, "invalid filter 'x'")
		b.do("POST", "/"+kind+"s/create", map[string]string{"Name": "a"}).want(t, 400, kind+" data must be larger than 0")
		b.do("GET", "/"+kind+"s/a", nil).want(t, 404, kind+" a not found")
		b.do("DELETE", "/"+kind+"s/a", nil).want(t, 404, kind+" a not found")
	}
	b.do("GET", "/networks/n?scope=swarm", nil).want(t, 404, "network n not found")
	if got := b.do("GET", `/networks?filters={"scope":["swarm"]}`, nil).want(t, 200, "").body; strings.TrimSpace(got) != "[]" {
		t.Error(got)
	}
	b.do("GET", "/networks", nil).want(t, 503, "no local Docker Engine")
	b.do("GET", "/containers/json", nil).want(t, 503, "no local Docker Engine")
	b.do("GET", "/distribution/a/b:c/json", nil).want(t, 503, "no local Docker Engine")
}

// Any manager answers, leader or not; one that is none says so.
func TestTimeline_IsThisManagersAnswer(t *testing.T) {
	b := newBench(t)
	b.manager.set(func(m *fakeManager) { m.none = true })
	var told timeline.Timeline
	b.do("GET", "/skep/v1/timeline?since=1800000000", nil).want(t, 200, `"Records":[]`).into(t, &told)
	if told.By != nodeID(1) || !told.Since.Equal(time.Unix(1800000000, 0)) {
		t.Errorf("%+v", told)
	}
	b.do("GET", "/skep/v1/timeline?since=yesterday", nil).want(t, 400, "since")
	b.node.manager = nil
	b.do("GET", "/skep/v1/timeline", nil).want(t, 503, "Worker nodes can't be used")
}
