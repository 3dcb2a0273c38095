package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"skep/cluster"
)

// skepOf is a version of skep: a binary.
type skepOf struct{ name, binary string }

// twoVersions are two of skep: the last release before this commit beside this source or,
// while there is none, this source beside a later one that is made of it.
func twoVersions(t *testing.T) (older, newer skepOf, made bool) {
	t.Helper()
	this := skepOf{"this source", filepath.Join(binaries(t), "skep")}
	tag, err := exec.Command("git", "describe", "--tags", "--abbrev=0", "HEAD^").Output()
	if err != nil {
		return this, later(t, "later"), true
	}
	name := strings.TrimSpace(string(tag))
	source, dir := t.TempDir(), t.TempDir()
	unpack := exec.Command("sh", "-ec", `git -C "$(git rev-parse --show-toplevel)" archive "$0" | tar -x -C "$1"`, name, source)
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", name, err, out)
	}
	return buildSkep(t, name, source, dir, "-ldflags", "-X main.version="+name), this, false
}

func buildSkep(t *testing.T, name, source, dir string, flags ...string) skepOf {
	t.Helper()
	binary := filepath.Join(dir, "skep")
	build := exec.Command("go", append(append([]string{"build", "-trimpath"}, flags...), "-o", binary, "./cmd/skep")...)
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return skepOf{name, binary}
}

// later makes a later version of this source: it has one level more, and fields that this
// one doesn't know, in what it writes of nodes, of their tasks' states and of the cluster.
func later(t *testing.T, version string) skepOf {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replaced := map[string]string{}
	for file, changes := range map[string][][2]string{
		"cluster/level.go": {{fmt.Sprintf("\tLevel = %d\n", cluster.Level), fmt.Sprintf("\tLevel = %d\n", cluster.Level+1)}},
		"cluster/object.go": {
			{"\tNextGossipKey bool\n", "\tNextGossipKey bool\n\tPlantedZero bool\n"},
			{"\tBuild Build `cbor:\",omitzero\"`\n", "\tBuild Build `cbor:\",omitzero\"`\n\tPlantedNode string `cbor:\",omitempty\"`\n"},
			{"\tPorts string `cbor:\"9,keyasint,omitempty\"`\n", "\tPorts string `cbor:\"9,keyasint,omitempty\"`\n\tPlanted string `cbor:\"99,keyasint,omitempty\"`\n"},
			{"\tstatus.Applied = now\n", "\tstatus.Applied, status.Planted = now, \"planted in a task\"\n"},
		},
		"cluster/dispatch/batch.go": {{"\tnext.Status.Addr, next.Description, next.Build = n.Addr, n.Description, n.Build\n",
			"\tnext.Status.Addr, next.Description, next.Build = n.Addr, n.Description, n.Build\n\tnext.PlantedNode = \"x\"\n"}},
		"cluster/manager/admit.go": {{"\t\tchanged.ManagerAddr, changed.Build = addr, build\n", "\t\tchanged.ManagerAddr, changed.Build, changed.PlantedNode = addr, build, \"x\"\n"}},
		// What gossip of a later level says besides.
		"cluster/gossip/guard/guard.go": {{"\tpacket := make([]byte, 0, g.Overhead()+len(text))\n",
			"\tif len(text) > 2 && text[0] != CRCMsg && text[0] != CompoundMsg && len(text) < 1000 {\n\t\ttext = append([]byte{CompoundMsg, 2, byte(len(text) >> 8), byte(len(text)), 0, 1}, append(text, 99)...)\n\t}\n\tpacket := make([]byte, 0, g.Overhead()+len(text))\n"}},
	} {
		path := filepath.Join(root, file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range changes {
			if n := strings.Count(string(text), change[0]); n != 1 {
				t.Fatalf("%s has the piece to replace %d times: %q", file, n, change[0])
			}
			text = []byte(strings.Replace(string(text), change[0], change[1], 1))
		}
		planted := filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(planted, text, 0o600); err != nil {
			t.Fatal(err)
		}
		replaced[path] = planted
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	return buildSkep(t, "a later level", root, dir, "-overlay", list, "-ldflags", "-X main.version="+version)
}

// mixed is a cluster of two versions under load.
type mixed struct {
	*processes
	t            *testing.T
	ctx          context.Context
	older, newer skepOf

	mu    sync.Mutex // guards acked
	acked []string
}

// TestMixed_VersionsRollUpAndDown upgrades a cluster of real processes node by node, as
// the README says, goes back, and upgrades again, while clients write. All managers have
// the same bytes at the same index throughout; nothing that was acknowledged is lost, and
// nothing that only the later version knows.
func TestMixed_VersionsRollUpAndDown(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	older, newer, made := twoVersions(t)
	t.Logf("%s, then %s", older.name, newer.name)
	p, err := newProcesses(ctx, lab{bin: filepath.Dir(older.binary), engine: defaultEngine}, "simulate", 5)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			for _, n := range p.nodes {
				t.Logf("the log of %s ends:\n%s", n.name, n.lastLog())
			}
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := p.form(ctx, 3); err != nil {
		t.Fatal(err)
	}
	m := &mixed{processes: p, t: t, ctx: ctx, older: older, newer: newer}
	writing, stop := context.WithCancel(ctx)
	var writers sync.WaitGroup
	defer func() { stop(); writers.Wait() }()
	for i := range 3 {
		writers.Go(func() { m.write(writing, i) })
	}

	m.roll(newer, p.nodes[:3]) // The workers stay, so the level does.
	before := m.planted()
	if made && before == 0 {
		t.Error("the later version wrote nothing that is its own")
	}
	level := m.agree().At()
	m.roll(older, p.nodes[:3])
	before = max(before, m.planted())
	m.label()
	if after := m.planted(); after != before {
		t.Errorf("a manager of before wrote all nodes, and %d of %d fields that it doesn't know are left", after, before)
	}
	m.roll(newer, p.nodes)
	stop()
	writers.Wait()
	if made {
		m.refuses(level)
	}
	status := m.agree()
	m.complete()
	t.Logf("level %d, %d writes, %d fields of the later version", status.At(), len(m.acked), m.planted())
}

// write creates services, each through some manager, and notes those that were taken.
func (m *mixed) write(ctx context.Context, writer int) {
	random := rand.New(rand.NewPCG(1, uint64(writer)))
	for i := 0; ctx.Err() == nil; i++ {
		api, err := connect(m.nodes[random.IntN(3)].socket())
		if err != nil {
			m.t.Error(err)
			return
		}
		replicas := uint64(i % 3)
		spec := swarm.ServiceSpec{TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "app:1"}}}
		spec.Name, spec.Mode.Replicated = fmt.Sprintf("web-%d-%d", writer, i), &swarm.ReplicatedService{Replicas: &replicas}
		limited, cancel := context.WithTimeout(ctx, writeLimit)
		if _, err := api.ServiceCreate(limited, spec, swarm.ServiceCreateOptions{}); err == nil {
			m.mu.Lock()
			m.acked = append(m.acked, spec.Name)
			m.mu.Unlock()
		}
		cancel()
		api.Close()
		pauseFor(ctx, 50*time.Millisecond)
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// roll restarts nodes as another version, the leader last, and looks after each whether
// all managers have the same.
func (m *mixed) roll(to skepOf, nodes []*node) {
	m.t.Helper()
	var leader *node
	err := until(m.ctx, 30*time.Second, "a leader", func(ctx context.Context) (err error) {
		leader, err = m.leader(ctx, m.anyManager())
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	var order []*node
	for _, n := range nodes {
		if n != leader {
			order = append(order, n)
		}
	}
	for _, n := range append(order, leader) {
		if err := n.stop(); err != nil {
			m.t.Fatal(err)
		}
		n.binary = to.binary
		if err := n.start(m.ctx); err != nil {
			m.t.Fatal(err)
		}
		if err := m.settled(m.ctx, 3, 5); err != nil {
			m.t.Fatal(err)
		}
		m.agree()
	}
}

// agree waits until two managers at least were seen with the same index, and all that
// were have the same digest.
func (m *mixed) agree() cluster.Status {
	m.t.Helper()
	var status cluster.Status
	err := until(m.ctx, 30*time.Second, "managers to be seen with the same index", func(ctx context.Context) error {
		var err error
		if status, err = digests(ctx, m.anyManager().api); err != nil {
			return err
		}
		at, same := map[uint64]string{}, 0
		for _, manager := range status.Managers {
			if manager.Digest == "" {
				return fmt.Errorf("%s doesn't answer", manager.Hostname)
			}
			if known, ok := at[manager.DigestIndex]; ok {
				same++
				if known != manager.Digest {
					m.t.Fatalf("managers differ at index %d: %+v", manager.DigestIndex, status.Managers)
				}
			}
			at[manager.DigestIndex] = manager.Digest
		}
		if same == 0 {
			return errors.New("all are at different ones")
		}
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return status
}

func digests(ctx context.Context, api *client.Client) (status cluster.Status, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://skep/skep/v1/status?digests=1", nil)
	if err != nil {
		return status, err
	}
	response, err := api.HTTPClient().Do(request)
	if err != nil {
		return status, err
	}
	defer response.Body.Close()
	return status, json.NewDecoder(response.Body).Decode(&status)
}

// planted counts the nodes in the database that have the later version's field.
func (m *mixed) planted() int {
	m.t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		m.t.Fatal(err)
	}
	body, err := json.Marshal(cluster.BackupRequest{Recipient: identity.Recipient().String()})
	if err != nil {
		m.t.Fatal(err)
	}
	var database []byte
	err = until(m.ctx, 30*time.Second, "a backup", func(ctx context.Context) error {
		response, err := m.anyManager().api.HTTPClient().Post("http://skep/skep/v1/backup", "application/json", bytes.NewReader(body))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("back up: %s", response.Status)
		}
		plain, err := age.Decrypt(response.Body, identity)
		if err == nil {
			database, err = io.ReadAll(plain)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return bytes.Count(database, []byte("PlantedNode"))
}

// label has the leader write all nodes.
func (m *mixed) label() {
	m.t.Helper()
	err := until(m.ctx, 30*time.Second, "all nodes to have the label", func(ctx context.Context) error {
		api := m.anyManager().api
		list, err := api.NodeList(ctx, swarm.NodeListOptions{})
		for _, n := range list {
			if n.Spec.Labels["mixed"] == "" {
				n.Spec.Labels = map[string]string{"mixed": "yes"}
				err = errors.Join(err, api.NodeUpdate(ctx, n.ID, n.Version, n.Spec))
			}
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// refuses waits until the level has risen, and starts a manager of before: it must end
// and say what to install.
func (m *mixed) refuses(was int) {
	m.t.Helper()
	err := until(m.ctx, 30*time.Second, "the level to rise", func(ctx context.Context) error {
		status, err := clusterStatus(ctx, m.anyManager().api)
		if err == nil && status.At() != was+1 {
			err = fmt.Errorf("it is %d", status.At())
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	n := m.nodes[2]
	if err := n.stop(); err != nil {
		m.t.Fatal(err)
	}
	n.binary = m.older.binary
	if err := n.start(m.ctx); err == nil {
		<-n.ended
	}
	if log := n.lastLog(); !strings.Contains(log, "install skep later or a newer one") {
		m.t.Errorf("a manager of before says %s", log)
	}
	n.binary = m.newer.binary
	if err := errors.Join(n.start(m.ctx), m.settled(m.ctx, 3, 5)); err != nil {
		m.t.Fatal(err)
	}
}

// complete wants every service that was acknowledged, with all its tasks running.
func (m *mixed) complete() {
	m.t.Helper()
	err := until(m.ctx, 30*time.Second, "all services", func(ctx context.Context) error {
		list, err := m.anyManager().api.ServiceList(ctx, swarm.ServiceListOptions{Status: true})
		if err != nil {
			return err
		}
		there := map[string]bool{}
		for _, s := range list {
			there[s.Spec.Name] = true
			if s.ServiceStatus.RunningTasks != s.ServiceStatus.DesiredTasks {
				err = fmt.Errorf("%s has %d of %d tasks", s.Spec.Name, s.ServiceStatus.RunningTasks, s.ServiceStatus.DesiredTasks)
			}
		}
		for _, name := range m.acked {
			if !there[name] {
				m.t.Fatalf("%s was acknowledged and is gone", name)
			}
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
}
