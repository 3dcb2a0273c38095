package cmd_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// planted is a bug: a piece of the code, which occurs once, and what it is replaced
// by; and the test that must notice.
type planted struct {
	name, file, old, new string
	pkg, run             string
	env                  []string
}

var bugs = []planted{
	{
		name: "one other manager's gossip lifts the mass-failure guard",
		file: "cluster/dispatch/liveness/decide.go", old: "o.MissedBy > 1 && 2*o.MissedBy > in.Managers", new: "o.MissedBy > 1",
		pkg: "./cluster/dispatch/liveness", run: "TestDecide",
	},
	{
		name: "a write is acknowledged before it is synced",
		file: "store/manifest.go", old: "raftboltdb.Options{Path: path, ", new: "raftboltdb.Options{NoSync: true, Path: path, ",
		pkg: "./store", run: "TestCrash",
	},
	{
		name: "the log's manifest may be an earlier one",
		file: "store/check.go", old: "\tcase last != wrote:\n", new: "\tcase last > wrote:\n",
		pkg: "./store", run: "TestFlips_Pointers",
	},
	{
		name: "a removal that a crash cut off isn't finished",
		file: "store/manifest.go", old: "index <= left.To; index++ {", new: "index < left.To; index++ {",
		pkg: "./store", run: "TestCrash_WhileOpening",
	},
	{
		name: "the folder isn't synced after a rename",
		file: "cluster/replacefile.go", old: "\treturn SyncDir(filepath.Dir(path))\n", new: "\t_ = filepath.Dir(path)\n\treturn nil\n",
		pkg: "./store", run: "TestCrash",
	},
	{
		name: "the term is ignored: who was elected again leads before it has applied what was committed",
		file: "cluster/manager/readindex.go", old: "\t\tconfirmed = in == term\n\t}\n\tif !confirmed || m.leadsTerm() != term || m.establishedTerm() != term {\n", new: "\t\tconfirmed = in != 0\n\t}\n\tif !confirmed || m.leadsTerm() == 0 {\n",
		pkg: "./cluster/manager", run: "TestFresh",
	},
	{
		name: "the base isn't checked: a write builds on what isn't so any more",
		file: "store/apply.go", old: "\tcase e.Base < s.current.applied:\n", new: "\tcase false:\n",
		pkg: "./store", run: ".",
	},
	{
		name: "an address is given to another task before it has rested",
		file: "scheduler/address/task.go", old: "const Rest = 30 * time.Second", new: "const Rest = 29 * time.Second",
		pkg: "./scheduler", run: "TestPlan_Properties",
	},
	{
		name: "a task that is to stop stays among those that clients are led to",
		file: "cluster/dispatch/networks/account.go", old: "\tcase !t.Live(), t.Status.State == cluster.StateRunning &&", new: "\tcase t.Status.State == cluster.StateRunning &&",
		pkg: "./cluster/dispatch/networks", run: ".",
	},
	{
		name: "packets of one node's connections have another node's mark",
		file: "agent/network/desired.go", old: "\t\t\tmark := w.Marks.of(node.Index)\n", new: "\t\t\tmark := w.Marks.of(peers[0].Index)\n",
		pkg: "./agent/network/simulate", run: "TestPlan_Scripts",
	},
	{
		name: "nobody is told that a node's address has changed",
		file: "cluster/dispatch/networks/hub.go", old: "\twas, is := standingOf(before), standingOf(after)\n", new: "\twas, is := standingOf(before), standingOf(after)\n\twas.addr = is.addr\n",
		pkg: "./cluster/dispatch/networks", run: ".",
	},
	{
		name: "what leads to a node stays as it is when the node's address changes",
		file: "agent/network/plan.go", old: "\tcase Chain:\n\t\ty := b.(Chain)\n", new: "\tcase Forward:\n\t\treturn x.Link == b.(Forward).Link\n\tcase Chain:\n\t\ty := b.(Chain)\n",
		pkg: "./agent/network/simulate", run: "TestPlan",
	},
	{
		name: "names of networks that a container isn't on are answered",
		file: "agent/network/dns/names.go", old: "\tfor _, id := range asker.Networks {\n\t\tnetwork := n.Networks[id]\n\t\tif network == nil {\n\t\t\tcontinue\n\t\t}\n\t\tif record, is :=", new: "\tfor _, network := range n.Networks {\n\t\tif record, is :=",
		pkg: "./agent/network/dns", run: "TestAnswer",
	},
	{
		name: "two services publish one port",
		file: "store/service.go", old: "p.PublishMode == swarm.PortConfigPublishModeIngress && p.PublishedPort > 0 {\n", new: "p.PublishMode == swarm.PortConfigPublishModeIngress && p.PublishedPort > 1<<16 {\n",
		pkg: "./scheduler/address", run: ".",
	},
	{
		name: "a slot is filled twice",
		file: "scheduler/scale.go", old: "w.slots[next].number == number && (w.slots[next].newest != nil || w.slots[next].created) {\n", new: "w.slots[next].number == number && w.slots[next].created {\n",
		pkg: "./scheduler", run: "TestPlan",
	},
	{
		name: "a watcher misses an event",
		file: "store/subscribe.go", old: "\t\tsub.pending = append(sub.pending, changes...)\n",
		new: "\t\tif sub.pending = append(sub.pending, changes...); view.Index()%50 == 0 {\n\t\t\tsub.pending = sub.pending[:len(sub.pending)-1]\n\t\t}\n",
		pkg: "./cluster/clustertest", run: "TestStorm_What", env: []string{"SKEP_STORM_SEEDS=60"},
	},
	{
		name: "a read isn't confirmed by a quorum",
		file: "cluster/manager/readindex.go", old: "\treturn term, m.confirm(ctx, term)\n", new: "\treturn term, ctx.Err()\n",
		pkg: "./cluster/clustertest", run: "TestReadIndex_Nothing/the_leader_is_refused", env: []string{"SKEP_READ_SEEDS=20"},
	},
	{
		name: "a question counts for more than the voter who asks",
		file: "cluster/manager/peers/confirm.go", old: "quorum == 2 && server.Suffrage", new: "quorum <= 3 && server.Suffrage",
		pkg: "./cluster/clustertest", run: "TestReadIndex_Nothing/the_leader_is_refused_with", env: []string{"SKEP_READ_SEEDS=20"},
	},
	{
		name: "a follower answers before it has what was acknowledged",
		file: "cluster/manager/readindex.go", old: "\treturn m.store.Wait(ctx, index)\n", new: "\t_ = index\n\treturn nil\n",
		pkg: "./cluster/clustertest", run: "TestReadIndex_Nothing/all_is_well",
	},
	{
		name: "a leader shows less than a follower has shown",
		file: "cluster/manager/readindex.go", old: "\tif m.store.View().Index() < commit {\n", new: "\tif m.store.View().Index() < commit && term == 0 {\n",
		pkg: "./cluster/manager", run: "TestReadBarrier_WaitsForWhatIsCommitted",
	},
	{
		name: "a drained node gets tasks",
		file: "cluster/object.go", old: "\treturn n.Status.State == NodeReady && n.Spec.Availability == swarm.NodeAvailabilityActive\n",
		new: "\treturn n.Status.State == NodeReady && n.Spec.Availability != swarm.NodeAvailabilityPause\n",
		pkg: "./scheduler", run: "TestPlan",
	},
	{
		name: "one slot more than the parallelism is updated",
		file: "scheduler/update.go", old: "\t\tif r.policy.parallelism > 0 && busy >= r.policy.parallelism {\n", new: "\t\tif r.policy.parallelism > 0 && busy > r.policy.parallelism {\n",
		pkg: "./scheduler", run: "TestPlan_Parallelism",
	},
	{
		name: "a task gets a node before what its service depends on is well",
		file: "scheduler/place.go", old: "\tif why = p.view.depends.unmet; why != \"\" {\n", new: "\tif why = p.view.depends.unmet; why != \"\" && s == nil {\n",
		pkg: "./scheduler", run: "TestPlan",
	},
	{
		name: "a time of a schedule that somebody's run came after has another run",
		file: "cluster/schedule.go", old: "\tsince := current.CreatedAt\n", new: "\tsince := s.CreatedAt\n",
		pkg: "./scheduler", run: "TestPlan_EachTimeRunsOnce",
	},
	{
		name: "an update goes on after the tasks that it is to pause after",
		file: "scheduler/update.go", old: "\t\tif r.policy.pauseAfter > 0 && begun >= r.policy.pauseAfter {\n", new: "\t\tif r.policy.pauseAfter > 0 && busy >= r.policy.pauseAfter {\n",
		pkg: "./scheduler", run: "TestPlan",
	},
	{
		name: "a fence is forgotten",
		file: "scheduler/fence.go", old: "\tcase !v.revision(t).Fenced():\n", new: "\tcase true:\n",
		pkg: "./cluster/clustertest", run: "TestStorm_What", env: []string{"SKEP_STORM_SEEDS=60"},
	},
	{
		name: "a nonce is used again",
		file: "store/seal/ring.go", old: "\trand.Read(nonce) //", new: "\trand.Read(nonce[:0]) //",
		pkg: "./store/seal", run: ".",
	},
	{
		name: "the order of a map decides what an entry makes of the state",
		file: "store/apply.go", old: "\tfor i, object := range objects {\n\t\tbefore :=", new: "\tshuffled := map[int]any{}\n\tfor i, object := range objects {\n\t\tshuffled[i] = object\n\t}\n\tfor i, object := range shuffled {\n\t\tindex += uint64(len(changes) % 2)\n\t\tbefore :=",
		pkg: "./cluster/clustertest", run: "TestStorm_What", env: []string{"SKEP_STORM_SEEDS=60"},
	},
	{
		name: "the restart delay isn't stored, so that a new leader forgets it",
		file: "scheduler/replace.go", old: "\tc.Task.NotBefore = max(r.notBefore, w.now)\n", new: "\tc.Task.NotBefore = w.now\n",
		pkg: "./scheduler", run: "TestPlan_Scripts",
	},
	{
		name: "a manager that lost its database goes on voting",
		file: "cluster/node/repair.go", old: "lineage, err = m.control().Lost(asking)", new: "err = asking.Err()",
		pkg: "./cluster/clustertest", run: "TestRepair",
	},
	{
		name: "a manager with a database of another lineage is let in",
		file: "cluster/manager/admit.go", old: "request.Lineage != view.Cluster().Lineage && ", new: "false && ",
		pkg: "./cluster/clustertest", run: "TestAlone",
	},
	{
		name: "what another version wrote is forgotten",
		file: "store/came.go", old: "\t\ts.came.Set(cameKey(n, object), f)\n", new: "\t\t_ = f\n",
		pkg: "./store", run: "TestForeign",
	},
	{
		name: "the level isn't asked before a write",
		file: "store/tx.go", old: "if err := checkLevel(object, tx.levelFor(object)); err != nil {", new: "if err := checkLevel(object, 99); err != nil {",
		pkg: "./store", run: "TestPut_Refuses",
	},
	{
		name: "the level rises before the last node can",
		file: "cluster/manager/level.go", old: "\t\tlevel = min(level, max(node.Build.Level, 1))\n", new: "\t\t_ = node\n",
		pkg: "./cluster/clustertest", run: "TestLevel",
	},
	{
		name: "a database that is gone isn't missed",
		file: "cluster/node/manage.go", old: "known.Database && known.Fresh == nil", new: "false",
		pkg: "./cluster/clustertest", run: "TestRepair",
	},
	{
		name: "a certificate that has ended is heard with any key",
		file: "cluster/ca/overdue.go", old: "if err := known(id, keyDigest(leaf)); err != nil {", new: "if err := known(id, keyDigest(leaf)); err != nil && at.IsZero() {",
		pkg: "./cluster/ca", run: "TestOverdue",
	},
	{
		name: "a node that was removed is given a new certificate over one that has ended",
		file: "cluster/manager/renew.go", old: "node == nil || !node.Certificate.Has(key)", new: "node != nil && !node.Certificate.Has(key)",
		pkg: "./cluster/clustertest", run: "TestOverdue_Refusals",
	},
	{
		name: "what is left without a key file is removed",
		file: "cluster/node/files.go", old: "\tif cut {\n", new: "\tif cut || f.dir != \"\" {\n",
		pkg: "./cluster/clustertest", run: "TestKeyFile",
	},
}

// TestPlanted_BugsAreCaught plants each bug in turn and wants the test to fail.
// SKEP_PLANTED=1 asks for it, since each builds the project anew: make planted.
func TestPlanted_BugsAreCaught(t *testing.T) {
	for _, bug := range bugs {
		t.Run(bug.name, func(t *testing.T) {
			path, err := filepath.Abs(filepath.Join("..", bug.file))
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(text), bug.old); n != 1 {
				t.Fatalf("%s has the piece to replace %d times; want once", bug.file, n)
			}
			if os.Getenv("SKEP_PLANTED") != "1" {
				return
			}
			dir := t.TempDir()
			ill := filepath.Join(dir, "ill.go")
			if err := os.WriteFile(ill, []byte(strings.Replace(string(text), bug.old, bug.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: ill}})
			if err != nil {
				t.Fatal(err)
			}
			list := filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(list, overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			build := exec.Command("go", "test", "-overlay", list, "-c", "-o", filepath.Join(dir, "test"), bug.pkg)
			build.Dir = ".."
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("the bug doesn't build: %v\n%s", err, out)
			}
			began := time.Now()
			test := exec.Command(filepath.Join(dir, "test"), "-test.count=1", "-test.failfast", "-test.timeout=15m", "-test.run", bug.run)
			test.Dir = filepath.Join("..", bug.pkg)
			test.Env = append(os.Environ(), bug.env...)
			out, err := test.CombinedOutput()
			_ = os.RemoveAll(filepath.Join(test.Dir, "testdata", "rapid")) // what rapid would try first the next time
			if err == nil {
				t.Fatalf("nobody noticed, in %v:\n%s", time.Since(began), out)
			}
			t.Logf("caught after %v: %s", time.Since(began).Round(100*time.Millisecond), firstFailures(string(out)))
		})
	}
}

// firstFailures are the lines that say what failed first.
func firstFailures(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "--- FAIL") || strings.Contains(line, "panic:") || strings.Contains(line, "storm: ") {
			if lines = append(lines, strings.TrimSpace(line)); len(lines) == 3 {
				break
			}
		}
	}
	return strings.Join(lines, " | ")
}
