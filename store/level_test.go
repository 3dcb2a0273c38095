package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// Until the cluster is at its level, a field isn't written.
func TestPut_RefusesWhatIsAboveTheLevel(t *testing.T) {
	checkLevel = func(object any, level int) error {
		if n, ok := object.(*cluster.Node); ok && n.Status.Message != "" && level < 2 {
			return cluster.Errorf(cluster.ErrVersion, "Node.Status.Message is of level 2")
		}
		return nil
	}
	t.Cleanup(func() { checkLevel = cluster.CheckLevel })
	s := New(Config{Log: quiet, Build: cluster.Build{Level: 2, MinLevel: 1}, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
	leadOn(t, s, &instant{fsm: s.FSM()})
	write := func(object any) error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.Put(object) })
	}
	if err := write(&cluster.Cluster{ID: "c", ClusterLevel: cluster.ClusterLevel{Level: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := write(&cluster.Node{ID: "n"}); err != nil {
		t.Fatal(err)
	}
	later := cluster.Node{ID: "n", Status: cluster.NodeStatus{Message: "new"}}
	if err := write(&later); !errors.Is(err, cluster.ErrVersion) || s.View().Node("n").Status.Message != "" {
		t.Fatalf("at level 1: %v, %+v", err, s.View().Node("n"))
	}
	if err := write(&cluster.Cluster{ID: "c", ClusterLevel: cluster.ClusterLevel{Level: 2}}); err != nil {
		t.Fatal(err)
	}
	if err := write(&later); err != nil {
		t.Fatalf("at level 2: %v", err)
	}
}

// A manager that doesn't fit stops before it has any of it, and says what to install.
func TestLevel_StopsAManagerThatDoesNotFit(t *testing.T) {
	newer := New(Config{Log: quiet, Build: cluster.Build{Version: "0.2.0", Level: 2, MinLevel: 1}})
	r := &instant{fsm: newer.FSM()}
	leadOn(t, newer, r)
	for level := 1; level <= 2; level++ {
		record := &cluster.Cluster{ID: "c", ClusterLevel: cluster.ClusterLevel{Level: level, LevelVersion: "0.2.0"}}
		put(t, newer, record)
	}
	snapshot := snapshotOf(t, newer.View())
	older := func() (*Store, *error) {
		fatal := new(error)
		return New(Config{Log: quiet, Build: cluster.Build{Version: "0.1.0", Level: 1, MinLevel: 1}, Fatal: func(err error) { *fatal = err }}), fatal
	}
	const want = "the cluster is at level 2, which skep 0.1.0 (levels 1 to 1) doesn't know: install skep 0.2.0 or a newer one"
	s, fatal := older()
	if err := s.FSM().Restore(reader(snapshot)); err == nil || *fatal == nil || !strings.Contains((*fatal).Error(), want) || s.View().Cluster() != nil {
		t.Errorf("a snapshot: %v, fatal %v", err, *fatal)
	}
	s, fatal = older()
	var last any
	for _, entry := range r.entries {
		last = s.FSM().Apply(&raft.Log{Index: entry.Index, Term: 1, Data: entry.Data})
	}
	if last == nil || *fatal == nil || !strings.Contains((*fatal).Error(), want) || s.View().Cluster().Level != 1 {
		t.Errorf("the log: %v, fatal %v", last, *fatal)
	}
}
