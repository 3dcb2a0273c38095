package manager

import (
	"testing"
	"time"

	"skep/cluster"
)

func TestStands(t *testing.T) {
	own := cluster.ManagerHealth{NodeID: "a", Term: 7, LastIndex: 40}
	quiet := cluster.ManagerHealth{NodeID: "b", Term: 7, LastContact: 200 * time.Millisecond}
	hears := cluster.ManagerHealth{NodeID: "c", Term: 7, LastContact: 40 * time.Millisecond}
	newer := cluster.ManagerHealth{NodeID: "d", Term: 8, LastContact: 400 * time.Millisecond}
	leads := cluster.ManagerHealth{NodeID: "e", Term: 7, Leader: true}
	away := cluster.ManagerHealth{}
	ahead := cluster.ManagerHealth{NodeID: "f", Term: 7, LastIndex: 41, LastContact: 200 * time.Millisecond}
	for _, test := range []struct {
		name   string
		others []cluster.ManagerHealth
		want   bool
	}{
		{"two managers: there is nobody to ask", nil, false},
		{"three, the other agrees", []cluster.ManagerHealth{quiet}, true},
		{"three, the other hears the leader", []cluster.ManagerHealth{hears}, false},
		{"three, the other is away", []cluster.ManagerHealth{away}, false},
		{"five, two agree", []cluster.ManagerHealth{quiet, quiet, hears}, true},
		{"five, one agrees", []cluster.ManagerHealth{quiet, hears, away}, false},
		{"one knows a newer term", []cluster.ManagerHealth{quiet, quiet, newer}, false},
		{"one who agrees has more entries", []cluster.ManagerHealth{quiet, ahead}, false},
		{"one leads", []cluster.ManagerHealth{quiet, quiet, leads}, false},
	} {
		if got := stands(own, test.others, 300*time.Millisecond); got != test.want {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
	}
}
