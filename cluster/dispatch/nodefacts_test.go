package dispatch

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestServeSession_NotesWhereANodeTakesPackets: what Hello says of address and engine is the
// node's, and stays when the engine can't be asked.
func TestServeSession_NotesWhereANodeTakesPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		for _, row := range []struct{ dataAddr, engine, wantAddr, wantEngine string }{
			{"10.9.0.1", "E1", "10.9.0.1", "E1"},
			{"10.9.0.2", "", "10.9.0.2", "E1"},
			{"", "E2", "", "E2"},
			{"10.0.0.1", "E2", "", "E2"},
			{"not an address", "two\nlines", "", "E2"},
		} {
			a := w.dial("n1", "m2")
			a.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat, Addr: "10.0.0.1", DataAddr: row.dataAddr, Engine: row.engine}})
			time.Sleep(time.Second)
			if node := w.node("n1"); node.DataAddr != row.wantAddr || node.Engine != row.wantEngine {
				t.Errorf("%+v: the node has %q and %q", row, node.DataAddr, node.Engine)
			}
			a.close()
		}
	})
}

// TestLocate_WhatAnAgentMaySay: an agent from elsewhere isn't on loopback, so that it isn't
// taken for one of those that share an engine; nor anywhere that packets can't be sent to.
func TestLocate_WhatAnAgentMaySay(t *testing.T) {
	for _, row := range []struct{ from, addr, data, wantAddr, wantData string }{
		{"10.0.0.1", "10.0.0.1", "10.9.0.1", "10.0.0.1", "10.9.0.1"},
		{"127.0.0.1", "127.0.1.2", "127.0.1.3", "127.0.1.2", "127.0.1.3"},
		{"::1", "127.0.1.2", "::1", "127.0.1.2", "::1"},
		{"", "127.0.1.2", "127.0.1.3", "127.0.1.2", "127.0.1.3"},
		{"10.0.0.1", "127.0.1.2", "127.0.1.3", "10.0.0.1", ""},
		{"10.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", ""},
		{"fd00::1", "10.0.0.1", "0.0.0.0", "10.0.0.1", ""},
		{"10.0.0.1", "10.0.0.1", "224.0.0.1", "10.0.0.1", ""},
		{"10.0.0.1", "10.0.0.1", "fe80::1", "10.0.0.1", ""},
		{"10.0.0.1", "10.0.0.1", "fe80::1%eth0", "10.0.0.1", ""},
	} {
		s := &session{}
		s.locate(&cluster.Hello{Addr: row.addr, DataAddr: row.data, Engine: strings.Repeat("e", maxName+1)}, row.from)
		if s.addr != row.wantAddr || s.dataAddr != row.wantData || s.engine != "" {
			t.Errorf("%+v: taken for %q, %q, engine %q", row, s.addr, s.dataAddr, s.engine)
		}
	}
}

// TestServeSession_NotesKeys: a node's keys stay when an agent that has just started says none, and another
// node's aren't its.
func TestServeSession_NotesKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		w.addNode("n2")
		one := cluster.WireKeys{{Generation: 1, Public: [32]byte{1}}}
		two := cluster.WireKeys{{Generation: 2, Public: [32]byte{2}}, {Generation: 1, Public: [32]byte{1}}}
		for _, row := range []struct {
			node       string
			hello, say cluster.WireKeys
			want       cluster.WireKeys
		}{
			{"n1", one, cluster.WireKeys{}, one},
			{"n1", cluster.WireKeys{}, cluster.WireKeys{}, one},
			{"n1", cluster.WireKeys{}, two, two},
			{"n2", one, cluster.WireKeys{}, cluster.WireKeys{}},
			{"n2", cluster.WireKeys{{Generation: 2, Public: [32]byte{3}}, {Generation: 1, Public: [32]byte{1}}}, cluster.WireKeys{}, cluster.WireKeys{{Generation: 2, Public: [32]byte{3}}}},
		} {
			a := w.dial(row.node, "m2")
			a.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat, Addr: "10.0.0.1", WireKeys: row.hello}})
			time.Sleep(time.Second)
			if row.say != (cluster.WireKeys{}) {
				a.send(cluster.FromAgent{Describe: new(swarm.NodeDescription), WireKeys: row.say})
				time.Sleep(time.Second)
			}
			if got := w.node(row.node).WireKeys; got != row.want {
				t.Errorf("%+v: the node has %+v", row, got)
			}
			a.close()
		}
	})
}
