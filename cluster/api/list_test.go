package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/telemetry/telemetrytest"
	"skep/store"
)

// whole is a list of tasks as one JSON value.
func whole(t testing.TB, view store.View) []byte {
	tasks := []swarm.Task{}
	for task := range view.Tasks() {
		tasks = append(tasks, renderTask(view, task))
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(tasks); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// TestList_IsOneValue: what is encoded in parts has the bytes of the whole.
func TestList_IsOneValue(t *testing.T) {
	for _, tasks := range []int{0, 1, 3, 1000} {
		b := crowded(t, tasks)
		if tasks == 3 {
			b.update(func(tx *store.Tx) error {
				next := *tx.Task(taskID(1))
				next.Status.Err, next.Status.Ports = "<&>\u2028", "80:8080/tcp"
				return tx.Put(&next)
			})
		}
		got := b.do("GET", "/tasks", nil).want(t, 200, "")
		if want := whole(t, b.view()); got.body != string(want) {
			t.Errorf("%d tasks: %.300s\nwant %.300s", tasks, got.body, want)
		}
		length := ""
		if len(got.body) < listPiece {
			length = fmt.Sprint(len(got.body))
		}
		if got.header.Get("Content-Length") != length || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%d tasks: %v", tasks, got.header)
		}
	}
	b := newBench(t)
	for _, path := range []string{"/services", "/secrets", "/configs", "/tasks"} {
		b.do("GET", path, nil).want(t, 200, "[]\n")
	}
}

// TestList_BreaksOffVisibly: what a list lacks can't be taken for the whole, here or by way of another manager.
func TestList_BreaksOffVisibly(t *testing.T) {
	p := newPair(t)
	fails := func(after int) handler {
		return func(context.Context, *request) (response, error) {
			return response{list: &listing{objects: func(yield func(any, error) bool) {
				for range after {
					if !yield(strings.Repeat("x", 1000), nil) {
						return
					}
				}
				yield(nil, errors.New("no more"))
			}}}, nil
		}
	}
	for _, b := range []*bench{p.other, p.here} {
		path, _ := listen(t, b.handler, ReadHeaderTimeout, MaxConnections)
		client := over(path)
		for _, after := range []int{1, 200} {
			for i := range p.other.server.routes {
				if r := &p.other.server.routes[i]; r.pattern == "/tasks" {
					r.handle = fails(after)
				}
			}
			answer, err := client.Get("http://skep/tasks")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			switch {
			case after == 1 && (answer.StatusCode != 500 || err != nil || !strings.Contains(string(body), "no more")):
				t.Errorf("an error before the first part: %d, %.100q, %v", answer.StatusCode, body, err)
			case after == 200 && err == nil:
				t.Errorf("an error in the middle: %d, %d bytes, and all seems well", answer.StatusCode, len(body))
			}
		}
	}
}

// over is a client of a unix socket.
func over(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
		DisableKeepAlives: true,
	}}
}

// TestList_OfOthersIsBounded: large lists that another manager passes on wait for the leader's
// places, and their refusal comes through as it is.
func TestList_OfOthersIsBounded(t *testing.T) {
	p := newPair(t)
	service := p.other.create(spec("web"))
	p.other.update(func(tx *store.Tx) error {
		for i := range largeList {
			if err := tx.Put(&cluster.Task{ID: taskID(i), ServiceID: service, Slot: uint32(i + 1)}); err != nil {
				return err
			}
		}
		return nil
	})
	p.other.server.listWait = 10 * time.Millisecond
	for range maxLargeLists {
		p.other.server.lists <- struct{}{}
	}
	p.here.do("GET", "/tasks", nil).want(t, 503, "try again in a moment, or ask for fewer objects with filters")
	p.here.do("GET", `/tasks?filters={"node":["n1"]}`, nil).want(t, 200, "[]")
	<-p.other.server.lists
	p.here.do("GET", "/tasks", nil).want(t, 200, taskID(largeList-1))
	if len(p.other.server.lists) != maxLargeLists-1 {
		t.Error("the list keeps its place")
	}
}

// BenchmarkList is one list over a socket: of 200,000 tasks, and the same encoded as a whole; of 20,000 tasks as real ones
// are, of 20 services on a network; of 2,000 services, of 10 tasks each, with their states, as `docker service ls` asks for it.
// The processors' time is the client's, too.
func BenchmarkList(b *testing.B) {
	large, real := crowded(b, 200_000), busy(b, 20, 1000)
	many := busy(b, 2000, 10)
	for _, of := range []struct {
		name, path string
		from       *bench
	}{{"tasks", "/tasks", large}, {"whole", "", large}, {"real", "/tasks", real}, {"real-whole", "", real}, {"services", "/services?status=true", many}} {
		b.Run(of.name, func(b *testing.B) {
			socket, _ := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if of.path == "" {
					_, _ = w.Write(whole(b, of.from.view()))
					return
				}
				of.from.handler.ServeHTTP(w, r)
			}), ReadHeaderTimeout, MaxConnections)
			began := telemetrytest.ProcessorTime()
			for b.Loop() {
				answer, err := over(socket).Get("http://skep" + of.path)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, answer.Body)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
			b.ReportMetric(float64((telemetrytest.ProcessorTime()-began).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// busy is so many services with so many running tasks each, whose specs are as those of stacks are.
func busy(t testing.TB, services, tasks int) *bench {
	b := newBench(t)
	b.update(func(tx *store.Tx) error {
		n := &cluster.Network{ID: "lan", VNI: 4097, Subnets: []cluster.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}}
		n.Spec.Name = "shop_default"
		n.Spec.DriverConfiguration = &swarm.Driver{Name: "overlay"}
		return tx.Put(n)
	})
	for i := range services {
		s := spec(fmt.Sprintf("shop_web%04d", i), func(s *swarm.ServiceSpec) {
			s.Labels = map[string]string{"com.docker.stack.image": "registry.example.com/shop/web:1.2.3", "com.docker.stack.namespace": "shop"}
			c := s.TaskTemplate.ContainerSpec
			c.Image, c.Labels = "registry.example.com/shop/web:1.2.3@sha256:"+strings.Repeat("a", 64), map[string]string{"com.docker.stack.namespace": "shop"}
			for i := range 12 {
				c.Env = append(c.Env, fmt.Sprintf("SHOP_SETTING_%d=https://setting.example.com/%d", i, i))
			}
			c.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "shop_data", Target: "/data"}}
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "curl", "-f", "http://localhost:8080/health"}, Interval: 10 * time.Second}
			s.TaskTemplate.Placement.Constraints = []string{"node.role==worker"}
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "lan", Aliases: []string{"web"}}}
		})
		b.update(func(tx *store.Tx) error {
			change := cluster.CreateService(fmt.Sprintf("service%018d", i), s, "")
			if err := errors.Join(tx.Put(change.Service), tx.Put(change.Revision)); err != nil {
				return err
			}
			for j := range tasks {
				at := i*tasks + j
				task := &cluster.Task{
					ID: taskID(at), ServiceID: change.Service.ID, Revision: change.Service.Revision, Slot: uint32(j + 1), NodeID: nodeID(1 + at%3), Desired: cluster.StateRunning,
					Status:    cluster.TaskStatus{State: cluster.StateRunning, Since: cluster.At(tx.Now()), Message: "started", ContainerID: fmt.Sprintf("%064d", at), PID: 7},
					Addresses: []cluster.Address{{VNI: 4097, Host: cluster.Host(2 + at)}},
				}
				if err := tx.Put(task); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return b
}
