package node

import (
	"testing"

	"skep/agent/simulate"
)

// TestSummary_OfANodeThatStarts: a member that hasn't looked at its files yet isn't "in no cluster".
func TestSummary_OfANodeThatStarts(t *testing.T) {
	n, err := New(Config{DataDir: t.TempDir(), Hostname: "n1", Driver: simulate.New(simulate.Config{Hostname: "n1"})})
	if err != nil {
		t.Fatal(err)
	}
	if said := n.Summary(); said != "starting" {
		t.Errorf("before it runs it says %q", said)
	}
	close(n.ready)
	if said := n.Summary(); said != "in no cluster yet" {
		t.Errorf("then it says %q", said)
	}
}
