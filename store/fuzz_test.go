package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
)

// filled are objects of each kind with something in most of their fields.
func filled() []any {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	record := &cluster.Cluster{ID: "c1", RootCert: []byte("cert"), RootKey: []byte("key"), WorkerToken: "w", GossipKeys: [][]byte{{1, 2}}, GossipKeysAt: at}
	record.Spec = cluster.CompleteSpec(swarm.Spec{Annotations: swarm.Annotations{Name: "default", Labels: map[string]string{"a": "b"}}})
	record.Rotation = &cluster.RootRotation{Cert: []byte("new"), Key: []byte("key")}
	node := &cluster.Node{ID: "n1", Role: swarm.NodeRoleManager, ManagerAddr: "127.0.1.1:2377"}
	node.Spec.Labels = map[string]string{"disk": "ssd"}
	node.Description.Engine.Plugins = []swarm.PluginDescription{{Type: "Volume", Name: "local"}}
	node.Status = cluster.NodeStatus{State: cluster.NodeReady, Addr: "127.0.1.1", Since: at}
	web := service("s1", "web")
	replicas, delay := uint64(3), 5*time.Second
	web.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &replicas}
	web.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "nginx", Env: []string{"A=b"}, StopGracePeriod: &delay}
	web.Spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, MaxFailureRatio: 0.5}
	web.Previous, web.Revision = &web.Spec, 2
	task := &cluster.Task{ID: "t1", ServiceID: "s1", Revision: 1, Slot: 1, NodeID: "n1", Desired: cluster.StateRunning, CreatedAt: 1, NotBefore: 2}
	task.Status = cluster.TaskStatus{State: cluster.StateRunning, Since: 3, Message: "started", ContainerID: "c0ffee", PID: 7, Ports: "80"}
	task.Generic = []cluster.Claim{{Kind: "gpu", Names: []string{"g1"}}}
	secret, config := newSecret("x1", "key"), newConfig("y1", "conf")
	secret.Spec.Data, config.Spec.Data = []byte("secret"), []byte("data")
	lan := newNetwork("w1", "lan")
	lan.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay", Options: map[string]string{"encrypted": ""}}
	lan.VNI, lan.Subnets = 4097, []cluster.Subnet{{Prefix: netip.MustParsePrefix("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.1")},
		{Prefix: netip.MustParsePrefix("fd00::/64"), Range: netip.MustParsePrefix("fd00::/96"), Gateway: netip.MustParseAddr("fd00::1"), Aux: map[string]netip.Addr{"a": netip.MustParseAddr("fd00::2")}}}
	web.VirtualIPs, task.Addresses = []cluster.Address{{VNI: 4097, Host: 2}}, []cluster.Address{{VNI: 4097, Host: 3}}
	web.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress"}}
	node.Index = 1
	record.Networks = cluster.NetworkSettings{Pools: []netip.Prefix{cluster.DefaultPool}, SubnetBits: 24, DataPort: 4789, Seed: 1}
	return []any{record, node, web, &cluster.Revision{ServiceID: "s1", Number: 1, ServiceName: "web", Spec: web.Spec.TaskTemplate, Auth: "e30="},
		&cluster.Rollout{ServiceID: "s1", State: swarm.UpdateStateUpdating, Total: 3, StartedAt: at}, task, secret, config, lan,
		&cluster.Attachment{ID: "v1", NodeID: "n1", NetworkID: "w1", Address: cluster.Address{VNI: 4097, Host: 4}, Name: "box", Aliases: []string{"b"}, Ended: 5}}
}

// FuzzApply gives an entry to two managers that hold the same: a row of bytes, and one
// that puts an object, or deletes one when there is none. Either both refuse it, and
// have what they had, or both have the same after it, which a third can be restored
// from.
func FuzzApply(f *testing.F) {
	before, _ := lead(f)
	put(f, before, filled()...)
	base := before.View().Index()
	full := snapshotOf(f, before.View())
	var all entry
	for _, object := range filled() {
		data, err := cluster.Encode(object)
		if err != nil {
			f.Fatal(err)
		}
		k, id := identify(object)
		put, deleted := record{Kind: k, Object: data}, record{Kind: k, ID: id}
		raw, err := encodeEntry(entry{Base: base, Changes: []record{deleted, put}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, uint8(k), "", data)
		f.Add(raw, uint8(k), id, []byte{})
		all.Changes = append(all.Changes, put, deleted)
	}
	for _, number := range []uint64{0, base - 1, base, base + 1} {
		all.Base = number
		raw, err := encodeEntry(all)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, uint8(0), "s1.18446744073709551615", []byte{0xa0})
	}
	// A time is a number too, and this one is long after the last that can be written.
	f.Add([]byte{format}, uint8(nodes.number), "", []byte{0xa2, 0x62, 'I', 'D', 0x62, 'n', '9', 0x61, 'c', 0x1b, 0, 0, 0x7f, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte, k uint8, id string, object []byte) {
		composed := record{Kind: kindNumber(k), ID: id}
		if len(object) > 0 {
			composed = record{Kind: kindNumber(k), Object: object}
		}
		applyTwice(t, full, &raft.Log{Index: base + 1, Term: 1, Data: raw})
		data, err := encodeEntry(entry{Base: base, Changes: []record{composed}})
		if err != nil {
			return // The ID isn't UTF-8.
		}
		applyTwice(t, full, &raft.Log{Index: base + 1, Term: 1, Data: data})
	})
}

// applyTwice gives log to two stores that were restored from full.
func applyTwice(t *testing.T, full []byte, log *raft.Log) {
	first, fatal := restored(t, full)
	second, _ := restored(t, full)
	was := first.View()
	before := allocated()
	err, _ := first.FSM().Apply(log).(error)
	if made := allocated() - before; made > bound(len(log.Data)) {
		t.Fatalf("an entry of %d bytes took %d bytes", len(log.Data), made)
	}
	again, _ := second.FSM().Apply(log).(error)
	switch {
	case (err == nil) != (again == nil) || err != nil && err.Error() != again.Error():
		t.Fatalf("one manager says %v, another %v", err, again)
	case first.View().Digest() != second.View().Digest():
		same(t, first.View(), second.View())
	case (*fatal != nil) != (err != nil && !errors.Is(err, errRefused)):
		t.Fatalf("refused with %v, and fatal is %v", err, *fatal)
	case err != nil:
		if first.View().Digest() != was.Digest() {
			t.Fatalf("refused with %v, and yet something changed", err)
		}
	default:
		if first.View().Index() != log.Index {
			t.Fatalf("applied, and the index is %d", first.View().Index())
		}
		third, _ := restored(t, snapshotOf(t, first.View()))
		same(t, third.View(), first.View())
	}
}

// restored is a store with what is in a good snapshot, and what it calls fatal then.
func restored(t *testing.T, snapshot []byte) (*Store, *error) {
	t.Helper()
	fatal := new(error)
	s := New(Config{Log: quiet, Fatal: func(err error) { *fatal = err }})
	if err := s.FSM().Restore(reader(snapshot)); err != nil {
		t.Fatalf("a snapshot that was just taken: %v", err)
	}
	return s, fatal
}

// FuzzRestore reads a snapshot of any content, with a checksum that fits: either it
// is refused, and nothing of it is there, or all of it is, and what is written of that
// is read and written as the same. That it needn't be what was read first is because
// a newer version's fields are ignored.
func FuzzRestore(f *testing.F) {
	s, _ := lead(f)
	empty := snapshotOf(f, s.View())
	put(f, s, filled()...)
	full := snapshotOf(f, s.View())
	for _, seed := range [][]byte{empty, full, full[:len(full)/2], full[:9], {}} {
		f.Add(seed[:max(0, len(seed)-sha256.Size)], uint8(tasks.number), []byte{0xa1, 1, 0x62, 't', '2'})
	}
	for _, object := range filled() {
		data, err := cluster.Encode(object)
		if err != nil {
			f.Fatal(err)
		}
		k, _ := identify(object)
		f.Add(empty[:len(empty)-sha256.Size], uint8(k), data)
	}
	f.Fuzz(func(t *testing.T, body []byte, k uint8, object []byte) {
		restoreTwice(t, body)
		one := bytes.Clone(empty[:len(empty)-sha256.Size])
		one[len(one)-1] = 1 // The number of objects.
		one = append(one, k)
		one = binary.AppendUvarint(one, uint64(len(object)))
		restoreTwice(t, append(one, object...))
	})
}

func restoreTwice(t *testing.T, body []byte) {
	sum := sha256.Sum256(body)
	var fatal error
	s := New(Config{Log: quiet, Fatal: func(err error) { fatal = err }})
	before := allocated()
	err := s.FSM().Restore(reader(append(bytes.Clone(body), sum[:]...)))
	if made := allocated() - before; made > bound(len(body)) {
		t.Fatalf("a snapshot of %d bytes took %d bytes", len(body), made)
	}
	if err != nil {
		if fatal == nil || s.View().Index() != 0 || s.View().s.count() != 0 {
			t.Fatalf("refused with %v, but fatal is %v, and %d objects are there", err, fatal, s.View().s.count())
		}
		return
	}
	written := snapshotOf(t, s.View())
	other, _ := restored(t, written)
	if again := snapshotOf(t, other.View()); !bytes.Equal(again, written) {
		t.Fatalf("read and written again it is another: %q, %q", written, again)
	}
}

// bound is how much memory reading so many bytes may take: one object may say that it
// is as long as maxObject.
func bound(size int) uint64 { return 2*maxObject + 2048*uint64(size) }

// allocated is how many bytes this process has taken so far, freed ones too.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
