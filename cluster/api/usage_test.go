package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"skep/cluster"
	"skep/store"
)

// Each node is asked once for its tasks; who can't be asked says why, and the others are there.
func TestUsage_OfAllNodes(t *testing.T) {
	b := newTaskBench(t)
	path := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != cluster.UsagePath {
			t.Errorf("asked for %s", r.URL)
		}
		fmt.Fprintf(w, `[{"TaskID":%q,"Usage":[{"Memory":7,"CPU":%d}]},{"TaskID":"another","Err":"x"}]`, taskID(2), len(r.URL.Query().Get("service")))
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	b.manager.engine = func(ctx context.Context, node string) (net.Conn, error) {
		if node == nodeID(3) {
			return nil, fail(cluster.ErrUnavailable, "node %s has no session", node)
		}
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	b.addTask(5, b.view().Task(taskID(2)).ServiceID, 5, 2, func(task *cluster.Task) { task.Status.State = cluster.StatePreparing })
	b.update(func(tx *store.Tx) error {
		n := *tx.Node(nodeID(2))
		n.Description.Resources.MemoryBytes = 1 << 30
		return tx.Put(&n)
	})
	var told []cluster.TaskUsage
	b.do("GET", cluster.UsagePath, nil).want(t, 200, "").into(t, &told)
	if len(told) != 3 || told[0].Err != "its node doesn't know it as running" || told[1].Usage[0].Memory != 7 || told[1].Usage[0].CPU != 0 || told[1].Name != "web.2."+taskID(2) ||
		told[1].Service != "web" || told[1].Hostname != "n2" || told[1].NodeMemory != 1<<30 || told[2].NodeMemory != 0 || told[2].Err != "node "+nodeID(3)+" has no session" {
		t.Errorf("%+v", told)
	}
	b.do("GET", cluster.UsagePath+"?node=n2&service=web&history=1", nil).want(t, 200, "").into(t, &told)
	if len(told) != 1 || told[0].TaskID != taskID(2) || told[0].Usage[0].CPU == 0 {
		t.Errorf("%+v", told)
	}
	b.do("GET", cluster.UsagePath+"?service=none", nil).want(t, 404, "service none not found")
	b.do("GET", cluster.UsagePath+"?node=none", nil).want(t, 404, "node none not found")
	b.do("GET", cluster.UsagePath+"?history=1", nil).want(t, 400, "name it")
	b.node.setManager(nil)
	b.do("GET", cluster.UsagePath, nil).want(t, 503, "")
}
