package main

import (
	"strings"
	"testing"
)

func TestClusterAudit_TellsWhoChangedWhat(t *testing.T) {
	node := newFakeNode(t)
	node.answer("GET /skep/v1/audit", `{"Records":[
		{"Time":"2030-01-02T03:04:05Z","Manager":"n1","Seq":7,"By":"uid 0 on n1","User":"root","UID":0,"PID":42,"Route":"POST /services/create","Objects":[{"Kind":"service","ID":"s1","Name":"web","To":16}],"Result":"done","Status":201},
		{"Time":"2030-01-02T03:04:06Z","Manager":"n2","Seq":3,"By":"ann from 10.0.0.9:1 on n2","Route":"DELETE /nodes/{id}","Ref":"n3","Result":"refused","Status":400},
		{"Time":"2030-01-02T03:04:07Z","Manager":"n2","Seq":4,"By":"uid 0 on n2","Route":"POST /skep/v1/tokens","Objects":[{"Kind":"token","ID":"t1"}],"Result":"done","Status":200}],"Missing":["n3"]}`)
	env := []string{"SKEP_HOST=" + node.url, "TZ=UTC"}
	r := skep(t, env, "cluster", "audit")
	want := "2030-01-02 03:04:05  root (uid 0 on n1, pid 42)  POST /services/create  service web new→16  done (201)\n" +
		"2030-01-02 03:04:06  ann from 10.0.0.9:1 on n2  DELETE /nodes/{id}  n3  refused (400)\n" +
		"2030-01-02 03:04:07  uid 0 on n2  POST /skep/v1/tokens  token t1  done (200)\n"
	if r.status != 0 || r.stdout != want || r.stderr != "Manager n3 doesn't tell what it was asked.\n" {
		t.Errorf("%+v, want\n%s", r, want)
	}
	if r := skep(t, env, "cluster", "audit", "--json"); r.status != 0 || strings.Count(r.stdout, "\n") != 3 || !strings.Contains(r.stdout, `"Objects":[{"Kind":"service","ID":"s1","Name":"web","To":16}]`) {
		t.Errorf("%+v", r)
	}
}
