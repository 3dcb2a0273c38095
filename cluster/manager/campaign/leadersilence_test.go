package campaign

import (
	"testing"
	"time"

	"skep/cluster"
)

func TestStands(t *testing.T) {
	const beat = 300 * time.Millisecond
	own := cluster.ManagerHealth{NodeID: "c", Term: 7, LastIndex: 40, LastContact: beat}
	late := own
	late.LastContact = beat + beat/2 + 60*time.Millisecond
	quiet := func(id string, last uint64) cluster.ManagerHealth {
		return cluster.ManagerHealth{NodeID: id, Term: 7, LastIndex: last, LastContact: 200 * time.Millisecond}
	}
	hears := cluster.ManagerHealth{NodeID: "d", Term: 7, LastIndex: 41, LastContact: 40 * time.Millisecond}
	newer := cluster.ManagerHealth{NodeID: "e", Term: 8, LastContact: 400 * time.Millisecond}
	leads := cluster.ManagerHealth{NodeID: "e", Term: 7, Leader: true}
	away := cluster.ManagerHealth{}
	type list = []cluster.ManagerHealth
	for _, test := range []struct {
		name   string
		own    cluster.ManagerHealth
		others list
		want   bool
	}{
		{"two managers: there is nobody to ask", own, nil, false},
		{"three, the other agrees", own, list{quiet("d", 40)}, true},
		{"three, the other hears the leader", own, list{hears}, false},
		{"three, the other is away", own, list{away}, false},
		{"five, two agree", own, list{quiet("d", 40), quiet("e", 40), hears}, true},
		{"five, one agrees", own, list{quiet("d", 40), hears, away}, false},
		{"one knows a newer term", own, list{quiet("d", 40), quiet("f", 40), newer}, false},
		{"one leads", own, list{quiet("d", 40), quiet("f", 40), leads}, false},
		{"another comes first by its ID", own, list{quiet("a", 40)}, false},
		{"another comes first by its log", own, list{quiet("d", 41)}, false},
		{"this one comes first by its log", own, list{quiet("a", 39)}, true},
		{"another came first, and nothing came of it", late, list{quiet("a", 41)}, true},
	} {
		if got := shouldCampaign(test.own, test.others, beat, 60*time.Millisecond); got != test.want {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
	}
}
