package main

import (
	"strings"
	"testing"
)

func TestToken_IsAloneOnStandardOutput(t *testing.T) {
	node := newFakeNode(t)
	env := []string{"SKEP_HOST=" + node.url}
	node.answer("POST /skep/v1/tokens", `{"ID":"t1","Role":"worker","Labels":{"zone":"a","disk":"ssd"},"Uses":5,"Until":"2030-01-02T03:04:05Z","State":"good","Token":"SWMTKN-1-x-y"}`)
	r := skep(t, env, "token", "create", "--label", "zone=a", "--label", "disk=ssd", "--uses", "5", "--for", "90m")
	if r.status != 0 || r.stdout != "SWMTKN-1-x-y\n" || r.stderr != "Token t1 lets in 5 nodes of role worker until 2030-01-02T03:04:05Z, with the labels disk=ssd,zone=a. It isn't shown again:\n" {
		t.Errorf("%+v", r)
	}
	if want := `{"Role":"worker","Labels":{"disk":"ssd","zone":"a"},"Uses":5,"For":"1h30m0s"}`; node.last() != want {
		t.Errorf("asked for %s, want %s", node.last(), want)
	}
	if r := skep(t, env, "token", "create", "--label", "a=b", "--label", "a=c"); r.status != 1 || !strings.Contains(r.stderr, "--label a: given twice") {
		t.Errorf("%+v", r)
	}
	node.answer("GET /skep/v1/tokens", `[{"ID":"t1","Role":"worker","Labels":{"zone":"a"},"Uses":5,"Used":2,"Until":"2030-01-02T03:04:05Z","State":"good","By":"uid 0 on n1"}]`)
	if r := skep(t, env, "token", "ls"); r.status != 0 || r.stdout != "ID   ROLE     USED     STATE   UNTIL                  LABELS   MADE BY\nt1   worker   2 of 5   good    2030-01-02T03:04:05Z   zone=a   uid 0 on n1\n" {
		t.Errorf("%+v", r)
	}
	node.answer("DELETE /skep/v1/tokens/t1", "")
	if r := skep(t, env, "token", "rm", "t1", "t2"); r.status != 1 || r.stdout != "t1\n" {
		t.Errorf("%+v", r)
	}
}
