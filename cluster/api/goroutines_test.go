package api

import (
	"strings"
	"testing"
)

func TestGoroutines(t *testing.T) {
	b := newBench(t)
	b.node.setManager(nil) // A worker has them, too.
	a := b.do("GET", "/skep/v1/goroutines", nil).want(t, 200, "goroutine profile: total ")
	if !strings.Contains(a.body, "TestGoroutines") || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%+v", a)
	}
}
