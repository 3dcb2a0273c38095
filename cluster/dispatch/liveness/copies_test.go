package liveness

import (
	"testing"
	"time"
)

func TestFindCopy(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(first, last float64) span {
		return span{noon.Add(time.Duration(first * float64(time.Second))), noon.Add(time.Duration(last * float64(time.Second)))}
	}
	for name, test := range map[string]struct {
		runs map[string]span
		now  float64
		want string
	}{
		"one":                           {map[string]span{"a.1": at(0, 60)}, 60, ""},
		"a daemon that was restarted":   {map[string]span{"a.1": at(0, 30), "a.2": at(30, 60)}, 60, ""},
		"a machine that was reset":      {map[string]span{"a.1": at(0, 34), "b.1": at(30, 60)}, 60, ""},
		"two machines":                  {map[string]span{"a.1": at(0, 60), "b.1": at(30, 60)}, 60, "b"},
		"two machines, not yet certain": {map[string]span{"a.1": at(0, 37), "b.1": at(30, 37)}, 37, ""},
		"the first one's daemon was restarted meanwhile": {map[string]span{"a.1": at(0, 35), "b.1": at(30, 60), "a.2": at(36, 60)}, 60, "b"},
		"two daemons of one machine":                     {map[string]span{"a.1": at(0, 60), "a.2": at(30, 60)}, 60, "a.2"},
		"the first one is gone":                          {map[string]span{"a.1": at(0, 60), "b.1": at(30, 95)}, 95, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := findCopy(test.runs, noon.Add(time.Duration(test.now*float64(time.Second)))); got != test.want {
				t.Errorf("got %q; want %q", got, test.want)
			}
		})
	}
}
