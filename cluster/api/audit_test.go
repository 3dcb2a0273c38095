package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// told is what the server tells of requests, without what differs from run to run.
func (b *bench) told() (lines []string) {
	b.t.Helper()
	var log cluster.AuditLog
	b.do("GET", "/skep/v1/audit", nil).want(b.t, 200, "").into(b.t, &log)
	for _, r := range log.Records {
		line := r.Route
		if r.Ref != "" {
			line += " " + r.Ref
		}
		for _, o := range r.Objects {
			step := "changed"
			switch {
			case o.From == 0 && o.To > 0:
				step = "made"
			case o.From > 0 && o.To == 0:
				step = "removed"
			case o.From >= o.To:
				step = fmt.Sprintf("from %d to %d", o.From, o.To)
			}
			line += fmt.Sprintf(", %s %s %s", o.Kind, o.Name, step)
		}
		lines = append(lines, fmt.Sprintf("%s: %s %d", line, r.Result, r.Status))
	}
	return lines
}

func TestAudit_TellsWhatWasChangedAndRefused(t *testing.T) {
	b := newBench(t)
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Node{ID: "w1", Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker, Availability: swarm.NodeAvailabilityActive}, Description: swarm.NodeDescription{Hostname: "wasp"}})
	})
	id := b.create(spec("web"))
	b.inspect(id) // Reading isn't told.
	b.do("POST", "/services/create", spec("web")).want(t, 409, "")
	b.do("DELETE", "/services/nobody", nil).want(t, 404, "")
	b.do("POST", "/skep/v1/nodes/w1/drain?for=1m", nil).want(t, 200, "")
	b.secret("key", "canary")
	b.do("GET", "/swarm", nil).want(t, 200, "")
	for _, verb := range []string{"rebalance", "pause", "resume"} { // They change what is beside the service.
		b.do("POST", "/skep/v1/services/"+id+"/"+verb, nil).want(t, 200, "")
	}
	b.do("DELETE", "/services/web", nil).want(t, 200, "")
	b.do("GET", "/services", nil).want(t, 200, "")
	b.do("POST", "/configs/create", swarm.ConfigSpec{Data: make([]byte, 4<<20)}).want(t, 413, "")
	want := []string{
		"POST /services/create, service web made: done 201",
		"POST /services/create: refused 409",
		"DELETE /services/{id} nobody: refused 404",
		"POST /skep/v1/nodes/{id}/drain w1, node wasp changed: done 200",
		"POST /secrets/create, secret key made: done 201",
		"GET /swarm: done 200",
		"POST /skep/v1/services/{id}/rebalance " + id + ", service web from 0 to 0: done 200",
		"POST /skep/v1/services/{id}/pause " + id + ", service web from 0 to 0: done 200",
		"POST /skep/v1/services/{id}/resume " + id + ", service web from 0 to 0: done 200",
		"DELETE /services/{id} web, service web removed: done 200",
		"POST /configs/create: refused 413",
	}
	if got := b.told(); !slices.Equal(got, want) {
		t.Errorf("it tells\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Every route that changes something is told, whoever adds one.
func TestAudit_HasAllRoutesThatChangeSomething(t *testing.T) {
	b := newBench(t)
	silent := map[string]bool{ // of this node alone, or told by what they have the leader do, or they change nothing
		"POST /skep/v1/services/plan": true, "POST /skep/v1/secrets/match": true, "POST /skep/v1/configs/match": true,
		"POST /skep/v1/console/redeem": true, "POST /console/{page...}": true,
		"POST /exec/{id}/start": true, "POST /exec/{id}/resize": true, "POST /containers/create": true,
		"POST /networks/create": true, "DELETE /networks/{id}": true, "POST /networks/prune": true,
		"POST /networks/{id}/connect": true, "POST /networks/{id}/disconnect": true,
	}
	for _, route := range b.server.routes {
		name := route.method + " " + route.pattern
		if changes := route.method != http.MethodGet && route.method != http.MethodHead; changes && !route.audits() != silent[name] {
			t.Errorf("%s: told %v", name, route.audits())
		}
	}
}

// TestAudit_TellsNoSecrets puts a word into whatever may be secret, and looks for it in what is told, also by refusals.
func TestAudit_TellsNoSecrets(t *testing.T) {
	const canary = "canary-d41d8cd98f"
	file := filepath.Join(t.TempDir(), "audit.log")
	b := newBench(t, func(c *Config) { c.AuditFile = file })
	s := spec("web")
	s.TaskTemplate.ContainerSpec.Env = []string{"PASSWORD=" + canary}
	s.TaskTemplate.ContainerSpec.Args = []string{"--token", canary}
	s.Labels = map[string]string{"note": canary}
	b.create(s, "X-Registry-Auth", "eyJ1c2VybmFtZSI6ICJjYW5hcnkifQ==", cluster.HeaderMessage, canary)
	b.secret("key", canary)
	b.config("conf", canary)
	s.Labels["skep."+canary] = canary
	s.Name = "other"
	b.do("POST", "/services/create", s).want(t, 400, canary)
	b.do("POST", "/swarm/join", swarm.JoinRequest{ListenAddr: "0.0.0.0", RemoteAddrs: []string{"127.0.0.1"}, JoinToken: canary}).want(t, 400, "")
	b.do("POST", "/swarm/unlock", swarm.UnlockRequest{UnlockKey: canary})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.server.writeAudit(ctx)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(text), "\n"); lines != 6 {
		t.Errorf("%d lines:\n%s", lines, text)
	}
	for _, told := range []string{string(text), strings.Join(b.told(), "\n"), string(b.do("GET", "/skep/v1/audit", nil).body)} {
		if strings.Contains(told, "canary-") || strings.Contains(told, "eyJ1") {
			t.Errorf("a secret is told:\n%s", told)
		}
	}
}

// Without a file it is in the log, if somebody wants it there.
func TestAudit_InTheLog(t *testing.T) {
	for file, lines := range map[string]int{"": 0, cluster.AuditToLog: 1} {
		var log strings.Builder
		b := newBench(t, func(c *Config) { c.AuditFile, c.Log = file, slog.New(slog.NewTextHandler(&log, nil)) })
		b.create(spec("web"))
		if n := strings.Count(log.String(), "msg=audit "); n != lines || lines > 0 && !strings.Contains(log.String(), `route="POST /services/create" service=`) {
			t.Errorf("with %q there are %d lines, want %d:\n%s", file, n, lines, log.String())
		}
	}
}

// TestAudit_KeepsTheLast keeps as many as it says.
func TestAudit_KeepsTheLast(t *testing.T) {
	a := newAudit(time.Unix(1, 0))
	for i := range keptAudits + 7 {
		a.add(cluster.Audited{Status: i})
	}
	all := a.all()
	if len(all) != keptAudits || all[0].Status != 7 || all[keptAudits-1].Status != keptAudits+6 || all[1].Seq != all[0].Seq+1 {
		t.Errorf("%d, from %+v to %+v", len(all), all[0], all[len(all)-1])
	}
	if later := newAudit(time.Unix(2, 0)); later.add(cluster.Audited{}).Seq <= all[keptAudits-1].Seq {
		t.Error("after a restart it begins with numbers of before")
	}
}

func TestAppendLine_LimitsTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	line := func(text string) {
		t.Helper()
		if err := appendLine(path, []byte(text+"\n"), 10); err != nil {
			t.Fatal(err)
		}
	}
	has := func(path, want string) {
		t.Helper()
		if text, err := os.ReadFile(path); err != nil || string(text) != want {
			t.Errorf("%s has %q, %v; want %q", path, text, err, want)
		}
	}
	line("one")
	line("two")
	has(path, "one\ntwo\n")
	line("three")
	has(path, "three\n")
	has(path+".1", "one\ntwo\n")
	line("a line beyond all limits")
	has(path, "a line beyond all limits\n")
	has(path+".1", "three\n")
	// Whoever moves it away needn't say so.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	line("new")
	has(path, "new\n")
	// One that others may read is closed to them.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	line("x")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	// A link would have it write elsewhere.
	if err := os.Symlink("elsewhere", path+".link"); err != nil {
		t.Fatal(err)
	}
	if err := appendLine(path+".link", []byte("x\n"), 10); err == nil {
		t.Error("it follows a link")
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("it wrote where a link leads")
	}
}

// TestAudit_KnowsTheProcess asks by a socket of this machine.
func TestAudit_KnowsTheProcess(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "api.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, b.server.Local()) }()
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	for method, path := range map[string]string{http.MethodGet: "/swarm", http.MethodDelete: "/services/nobody"} { // Its own looks aren't told.
		ask, err := http.NewRequestWithContext(t.Context(), method, "http://skep"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(ask)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	all := b.server.audit.all()
	uid := uint32(os.Getuid())
	if len(all) != 1 || all[0].UID == nil || *all[0].UID != uid || all[0].PID != int32(os.Getpid()) || all[0].User != userName(uid) ||
		all[0].By != fmt.Sprintf("uid %d on %s", uid, b.server.Hostname) {
		text, _ := json.Marshal(all)
		t.Errorf("it tells %s", text)
	}
	if name := nameIn([]byte("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/:\n"), 1000); name != "ann" {
		t.Errorf("1000 is %q", name)
	}
}

// What the leader says of a change is for the manager that was asked, and no client sees it.
func TestAudit_LeaderTellsWhoForwards(t *testing.T) {
	_, at := withNote(&http.Request{}, &route{kind: write})
	at.objects = []cluster.AuditedObject{{Kind: "service", ID: "s1", Name: "web/é", From: 7, To: 9}}
	header := http.Header{}
	at.tell(header, nil)
	_, by := withNote(&http.Request{}, &route{kind: write})
	by.hear(header)
	if objects, unknown := by.outcome(); unknown || !slices.Equal(objects, at.objects) || len(header) != 0 {
		t.Errorf("heard %+v, unknown %v; the header has %v", objects, unknown, header)
	}
	at.tell(header, fmt.Errorf("update: %w", cluster.ErrUnknownOutcome))
	by.hear(header)
	if _, unknown := by.outcome(); !unknown {
		t.Error("an unknown outcome isn't heard")
	}
	for _, odd := range []string{"%", "{}", url.QueryEscape("[" + strings.Repeat(`{"Kind":"x"},`, 99) + `{}]`)} {
		header.Set(auditHeader, odd)
		_, n := withNote(&http.Request{}, &route{kind: write})
		n.hear(header)
		if objects, unknown := n.outcome(); unknown || len(objects) > auditObjects || len(header) != 0 {
			t.Errorf("of %.20q it heard %d, %v", odd, len(objects), unknown)
		}
	}
	(*note)(nil).hear(header)
	(*note)(nil).tell(header, cluster.ErrUnknownOutcome)
	(*note)(nil).failed(cluster.ErrUnknownOutcome)
}
