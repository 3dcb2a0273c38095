package agent

import (
	"errors"
	"testing"
	"time"

	"skep/cluster"
)

func looks(from, count int) (looks []cluster.Usage) {
	for i := range count {
		looks = append(looks, cluster.Usage{At: time.Unix(int64(from+i), 0)})
	}
	return looks
}

func TestKeepUsage_IsBounded(t *testing.T) {
	a := &Agent{}
	known := map[string]*usageOf{"sick": {err: errors.New("gone")}}
	for i := range maxUsageTasks + 10 {
		known[string(rune(0x4e00+i))] = &usageOf{}
	}
	for i := range cluster.UsageKept + 5 {
		for _, of := range known {
			of.last = looks(i, 1)[0]
		}
		a.keepUsage(known)
	}
	keeping := 0
	for id, of := range known {
		switch len(of.kept) {
		case 0:
		case cluster.UsageKept:
			keeping++
			if first := of.kept[0].At.Unix(); first != 5 {
				t.Fatalf("%s: the first is of %d", id, first)
			}
		default:
			t.Fatalf("%s: %d are kept", id, len(of.kept))
		}
	}
	if keeping != maxUsageTasks || len(known["sick"].kept) != 0 {
		t.Errorf("of %d tasks something is kept, and %d of the sick one", keeping, len(known["sick"].kept))
	}
}

func TestTellUsage(t *testing.T) {
	known := map[string]*usageOf{"t": {serviceID: "s", kept: looks(1, 10), last: looks(10, 1)[0]}}
	for _, test := range []struct {
		history      bool
		service      string
		tasks, looks int
	}{{false, "", 1, 2}, {true, "s", 1, 10}, {true, "other", 0, 0}} {
		told := tellUsage(known, usageRequest{serviceID: test.service, history: test.history})
		if len(told) != test.tasks || test.tasks > 0 && (len(told[0].Usage) != test.looks || told[0].Usage[test.looks-1].At.Unix() != 10 || told[0].Usage[test.looks-2].At.Unix() != 9) {
			t.Errorf("%+v: %+v", test, told)
		}
	}
}
