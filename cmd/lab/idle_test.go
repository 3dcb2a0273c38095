package main

import (
	"os"
	"testing"
	"time"
)

func TestIdle_ReadsProcessorTime(t *testing.T) {
	line := "123 (a (b) c) S 1 123 123 0 -1 4194560 5000 0 0 0 250 31 0 0 20 0 9 0 100 1000 200"
	if used, err := parseStat([]byte(line)); err != nil || used != 2810*time.Millisecond {
		t.Errorf("%v, %v; want 2.81s", used, err)
	}
	for _, bad := range []string{"", "1 (a) S 1", "1 (a) S 1 2 3 4 5 6 7 8 9 10 x 12 13"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	before, err := processorTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 200*time.Millisecond; {
	}
	if after, err := processorTime(os.Getpid()); err != nil || after <= before {
		t.Errorf("%v before, %v after, %v", before, after, err)
	}
}
