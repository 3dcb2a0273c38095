package dispatch

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/store"
)

// What a worker that is in somebody else's hands can do to others, and what it can't.

func running(taskID string) cluster.Report {
	return cluster.Report{TaskID: taskID, Status: cluster.TaskStatus{State: cluster.StateRunning}}
}

func TestAttack_AnotherNodesReportsAreNotSuppressed(t *testing.T) {
	o := newOutbox(nil)
	o.addReports("owner", []cluster.Report{running("t1")})
	for state := cluster.StateAccepted; state <= cluster.StateFailed; state++ {
		o.addReports("thief", []cluster.Report{{TaskID: "t1", Status: cluster.TaskStatus{State: state}}})
	}
	p := o.next("m", "e", noon)
	var said []string
	for _, r := range p.relay.Reports {
		said = append(said, fmt.Sprint(r.NodeID, " says ", r.Report.Status.State))
	}
	if !strings.Contains(fmt.Sprint(said), "owner says running") {
		t.Errorf("told is %q", said)
	}
	if o.ack(p); !o.empty() || o.pending != 0 {
		t.Errorf("%d reports are left", o.pending)
	}
}

func TestAttack_ManyReportsDontKeepOthersWaiting(t *testing.T) {
	o := newOutbox(nil)
	var made []cluster.Report
	for i := range 100_000 {
		made = append(made, cluster.Report{TaskID: fmt.Sprint(i), Status: cluster.TaskStatus{State: cluster.StateRunning, Err: strings.Repeat("x", 1000)}})
	}
	o.addReports("loud", made)
	for i := range 10 {
		o.addReports("n", []cluster.Report{running(fmt.Sprint("t", i))})
	}
	own := 0
	for _, r := range o.next("m", "e", noon).relay.Reports {
		if r.NodeID == "n" {
			own++
		}
	}
	if own != 10 {
		t.Errorf("the first relay has %d of 10 reports of a node beside one that has 100,000", own)
	}
}

// A node may have more reports waiting than this replica knows tasks of it, but not
// many more; what it makes up of others' tasks takes no memory at all.
func TestAttack_MadeUpReportsEndTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.settle()
		w.addNode("n1")
		w.addNode("n2")
		w.addTask("t1", "n1")
		a := w.connect("n2", "m2")
		w.cut("m2", true)
		foreign := make([]cluster.Report, 1000)
		for i := range foreign {
			foreign[i] = running("t1")
		}
		for range 20 {
			a.send(cluster.FromAgent{Reports: foreign})
		}
		synctest.Wait()
		if waits := w.managers["m2"].outbox.pendingOf("n2"); waits != 0 {
			t.Errorf("%d reports of another node's task wait", waits)
		}
		if lines := strings.Count(w.managers["m2"].logged(), "report refused"); lines > 16 {
			t.Errorf("%d lines in the log for 20,000 refused reports", lines)
		}
		for i := range 2 * maxUnknown / 1000 {
			made := make([]cluster.Report, 1000)
			for j := range made {
				made[j] = running(fmt.Sprint("made-", i, "-", j))
			}
			if a.send(cluster.FromAgent{Reports: made}) != nil {
				break
			}
		}
		select {
		case err := <-a.served:
			if !errors.Is(err, errTooMuch) {
				t.Errorf("the session ended with %v", err)
			}
		case <-time.After(100 * time.Millisecond):
			t.Error("the session goes on")
		}
		if waits := w.managers["m2"].outbox.pendingOf("n2"); waits > maxUnknown {
			t.Errorf("%d made-up reports wait", waits)
		}
	})
}

// A service may publish many ports, and what each of its tasks says of them is taken; of
// other tasks no more is.
func TestReports_OfAllPortsOfAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.settle()
		w.addNode("n1")
		var published []swarm.PortConfig
		for i := range cluster.MaxPorts {
			published = append(published, swarm.PortConfig{TargetPort: uint32(i + 20_000), PublishedPort: uint32(i + 20_000), Protocol: "sctp", PublishMode: swarm.PortConfigPublishModeHost})
			v6 := published[2*i]
			v6.PublishedPort += 30_000
			published = append(published, v6)
		}
		w.update(func(tx *store.Tx) error {
			endpoint := &swarm.EndpointSpec{Ports: published[:cluster.MaxPorts]}
			return tx.Put(&cluster.Revision{ServiceID: "s", Number: 1, ServiceName: "web", Endpoint: endpoint})
		})
		w.addTask("t1", "n1")
		a := w.connect("n1", "m1")
		report := running("t1")
		report.Status.Ports = cluster.FormatPorts(published)
		a.send(cluster.FromAgent{Reports: []cluster.Report{report}})
		time.Sleep(time.Second)
		if got := len(cluster.ParsePorts(w.task("t1").Status.Ports)); got != 2*cluster.MaxPorts {
			t.Errorf("%d of %d ports are known", got, 2*cluster.MaxPorts)
		}
		if report.TaskID = "other"; len(report.Status.Ports) <= maxPortsLength {
			t.Fatal("too few")
		} else if _, err := checkReport(report, portsLength(w.now().replica.View(), nil)); err == nil {
			t.Error("as many ports of a task that isn't known")
		}
	})
}

// A worker that opens session after session doesn't begin anew with its lines in the log.
func TestAttack_RefusedReportsOfManySessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.settle()
		w.addNode("n1")
		w.addNode("n2")
		w.addTask("t1", "n1")
		for range 50 {
			a := w.connect("n2", "m2")
			a.send(cluster.FromAgent{Reports: []cluster.Report{running("t1")}})
			synctest.Wait()
			a.conn.Close()
			<-a.served
		}
		if lines := strings.Count(w.managers["m2"].logged(), "report refused"); lines < 1 || lines > 5 {
			t.Errorf("%d lines in the log for 50 sessions with a refused report each", lines)
		}
	})
}

func TestAttack_DescriptionsAreWrittenNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.settle()
		w.addNode("n1")
		a := w.connect("n1", "m1")
		before := w.journal.count()
		for i := range 600 {
			a.send(cluster.FromAgent{Describe: &swarm.NodeDescription{Hostname: fmt.Sprint("name-", i)}})
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(describedSpan)
		if written := w.journal.count() - before; written > 20 {
			t.Errorf("%d writes for 600 descriptions in a minute", written)
		}
		if got := w.node("n1").Description.Hostname; got != "name-599" {
			t.Errorf("the last description isn't the node's, %q is", got)
		}
	})
}

// What an agent says of its node's state is a write each time that it is another one, so it is
// heard a few times in a minute, however often it opens a session.
func TestAttack_AStateThatTurnsOverAndOver(t *testing.T) {
	for name, say := range map[string]func(i int) cluster.FromAgent{
		"halts":  func(int) cluster.FromAgent { return cluster.FromAgent{Leaving: true, Halting: true} },
		"leaves": func(int) cluster.FromAgent { return cluster.FromAgent{Leaving: true} },
		"engine": func(i int) cluster.FromAgent { return cluster.FromAgent{EngineAway: i%2 == 0} },
		"warns":  func(i int) cluster.FromAgent { return cluster.FromAgent{Warning: fmt.Sprint("warning ", i)} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				w.settle()
				w.addNode("n1")
				before := w.journal.count()
				a := w.connect("n1", "m1")
				for i := range 600 {
					if a.over() {
						a.close()
						a = w.connect("n1", "m1")
					}
					a.send(say(i))
					time.Sleep(100 * time.Millisecond)
				}
				if written := w.journal.count() - before; written > 4*maxTurns {
					t.Errorf("%d writes in a minute", written)
				}
				time.Sleep(turnSpan)
				a.close()
				a = w.connect("n1", "m1")
				w.until("n1", cluster.NodeReady, 10*time.Millisecond)
				a.send(cluster.FromAgent{Leaving: true, Halting: true})
				w.until("n1", cluster.NodeDown, 10*time.Millisecond)
			})
		})
	}
}

// Whatever an agent says of addresses, ports, names and reasons, what is kept of it is
// short, and can be shown on a terminal.
func TestAttack_PropertyWhatIsSaidIsBounded(t *testing.T) {
	text := func(t *rapid.T, name string) string {
		piece := rapid.SampledFrom([]string{"a", "\x1b[2J", "\x00", "\r", "\x9b", "1:2/tcp,", "::1%", "10.0.0.1", "\u202e", "é"}).Draw(t, name)
		return strings.Repeat(piece, rapid.SampledFrom([]int{0, 1, 3, 20_000}).Draw(t, name+" times"))
	}
	plain := func(t *rapid.T, what, kept string, limit int) {
		if len(kept) > limit || strings.ContainsAny(kept, "\x1b\x00\r\u009b\u202e") {
			t.Fatalf("%s of %d bytes: %.100q", what, len(kept), kept)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		if addr, ok := checkAddr(text(t, "addr")); ok {
			plain(t, "address", addr, 45)
		}
		r := cluster.Report{TaskID: text(t, "task"), Status: cluster.TaskStatus{
			State: cluster.StateRunning, Message: text(t, "message"), Err: text(t, "err"), Ports: text(t, "ports"), ContainerID: text(t, "container"),
		}}
		if r, err := checkReport(r, maxPortsLength); err == nil {
			plain(t, "message", r.Status.Message, maxTextLength)
			plain(t, "err", r.Status.Err, maxTextLength)
			plain(t, "ports", r.Status.Ports, maxPortsLength)
			plain(t, "container", r.Status.ContainerID, 2*maxIDLength)
		}
		plain(t, "warning", boundWarning(text(t, "warning")), maxWarning)
		plain(t, "version", cluster.Build{Version: text(t, "version")}.Bounded().Version, 64)
		plain(t, "run", boundName(text(t, "run")), maxName)
		name := text(t, "name")
		description := swarm.NodeDescription{
			Hostname: name, Platform: swarm.Platform{OS: name, Architecture: name},
			Engine: swarm.EngineDescription{EngineVersion: name, Labels: map[string]string{name: name}, Plugins: []swarm.PluginDescription{{Type: name, Name: name}}},
		}
		if _, err := checkDescription(&description); err == nil {
			for _, kept := range []string{description.Hostname, description.Platform.OS, description.Platform.Architecture, description.Engine.EngineVersion, description.Engine.Plugins[0].Type, description.Engine.Plugins[0].Name} {
				plain(t, "name", kept, maxTextLength)
			}
			for key, value := range description.Engine.Labels {
				plain(t, "label", key+value, 2*maxTextLength)
			}
		}
	})
}

// Connections that announce a large frame, and send a byte now and then, are few, and
// gone soon. Neither they nor a removed node's keep the node's own agent away.
func TestAttack_ConnectionsThatSayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.settle()
		w.addNode("n1")
		for _, nodeID := range []string{"n1", "removed"} {
			refused, slow := 0, 0
			var held []*testAgent
			for range 60 {
				a := w.dial(nodeID, "m1")
				held = append(held, a)
				go func() {
					frame := []byte{0, 7, 0xff, 0xff}
					for a.conn.SetWriteDeadline(time.Now().Add(time.Second)); ; time.Sleep(time.Second) {
						if _, err := a.conn.Write(frame); err != nil {
							return
						}
						a.conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
						frame = []byte{0xa1}
					}
				}()
			}
			synctest.Wait()
			for _, a := range held {
				select {
				case err := <-a.served:
					refused++
					if !errors.Is(err, errCrowd) {
						t.Errorf("%s: ended with %v", nodeID, err)
					}
				default:
					slow++
				}
			}
			if slow > maxOpening || refused != 60-slow {
				t.Errorf("%s: %d connections are held, %d were refused", nodeID, slow, refused)
			}
			time.Sleep(helloLimit + time.Second)
			if len(w.managers["m1"].unopened) != 0 {
				t.Errorf("%s: still held: %v", nodeID, w.managers["m1"].unopened)
			}
		}
		w.connect("n1", "m1")
		w.until("n1", cluster.NodeReady, 100*time.Millisecond)
	})
}
