package main

import (
	"bytes"
	"strings"
	"testing"

	"skep/cluster"
)

func TestUpgradeBack_NeedsANode(t *testing.T) {
	dir := t.TempDir()
	if r := skep(t, nil, "upgrade", "back", "--data-dir", dir); r.status != 1 || !strings.Contains(r.stderr, "there is no "+dir+"/identity.key, so there is no node of a cluster") {
		t.Errorf("%+v", r)
	}
}

func TestUpgradeStatus_SaysWhyTheLevelWaitsAndWhoHasTheWayBack(t *testing.T) {
	status := cluster.Status{
		ClusterLevel: cluster.ClusterLevel{Level: 2}, LevelWaits: "manager n3 can't be raised to level 3: no room",
		Managers: []cluster.ManagerHealth{{Hostname: "n1", Kept: 2}, {Hostname: "n2", Kept: 3}, {Hostname: "n3"}, {Hostname: "n4", Kept: 2}},
	}
	var out bytes.Buffer
	if err := showUpgrade(&out, status, nil); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"The leader doesn't raise it yet: manager n3 can't be raised to level 3: no room.\n",
		"The way back to before it rose is \"skep upgrade back\" on one of these: n1, n4.\n",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
}
