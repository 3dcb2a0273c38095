// Package cmd holds no code, only the rules that all packages of the project keep,
// as tests: which package may import which, and that each says what it is for.
package cmd

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// arrow is one allowed import between packages of the project.
type arrow struct{ from, to, why string }

// arrows are all of them: what isn't here isn't allowed, and what is here and isn't used yet
// is a door that may be used.
// Tests may import more, but nothing from above (TestArrows_TestsDontImportUpwards).
var arrows = []arrow{
	{"cluster/ca", "cluster", "a certificate carries an Identity"},
	{"cluster/gossip", "cluster", "it speaks of Members"},
	{"cluster/gossip", "cluster/gossip/guard", "nothing reaches memberlist unchecked"},
	{"cluster/gossip/guard", "cluster", "what it refuses is invalid"},

	{"store", "cluster", "it keeps the cluster's objects"},
	{"store/seal", "cluster", "its files are replaced as all are"},
	{"store", "store/seal", "nothing reaches the disk unsealed"},
	{"store", "cluster/telemetry", "it measures writes"},
	{"scheduler", "cluster/telemetry", "it measures plans and what becomes of tasks"},
	{"cluster/api", "cluster/telemetry", "it measures requests, and shows what all have measured"},
	{"cluster/dispatch", "cluster/telemetry", "it measures sessions"},
	{"agent", "cluster/telemetry", "it measures calls to the engine"},
	{"cluster/manager", "cluster/telemetry", "it gives store and scheduler what they measure by"},
	{"cluster/node", "cluster/telemetry", "a node has one set of instruments"},
	{"cmd/skep", "cluster/telemetry", "a daemon's instruments are the process's, too"},

	{"cluster/trace", "cluster", "it complains as all do"},
	{"store", "cluster/trace", "writes and commits are spans"},
	{"scheduler", "cluster/trace", "plans are spans"},
	{"cluster/api", "cluster/trace", "requests are spans, where traces begin"},
	{"cluster/dispatch", "cluster/trace", "what goes to agents and comes from them belongs to traces"},
	{"agent", "cluster/trace", "tasks on their way to running are spans"},
	{"agent/docker", "cluster/trace", "calls to the engine are spans"},
	{"cluster/manager", "cluster/trace", "it gives store, scheduler and dispatch the node's tracer"},
	{"cluster/node", "cluster/trace", "a node has one tracer"},
	{"cmd/skep", "cluster/trace", "the environment says whether there are traces"},

	{"scheduler/placement", "cluster", "it weighs nodes and tasks"},
	{"scheduler/address", "cluster", "its refusals are the cluster's errors"},
	{"scheduler/address", "store", "what is in use is what a View says"},
	{"scheduler", "cluster", "it decides about services and tasks"},
	{"scheduler", "store", "Plan reads a View, the loop writes what Plan says"},
	{"scheduler", "scheduler/placement", "Plan asks where a task goes"},
	{"scheduler", "scheduler/address", "a task's addresses are chosen in the commit that assigns it"},

	{"cluster/dispatch", "cluster", "assignments and reports are the cluster's messages"},
	{"cluster/dispatch", "store", "agents are served from the manager's own replica"},
	{"cluster/dispatch", "cluster/dispatch/liveness", "the leader decides which nodes are alive"},
	{"cluster/dispatch", "cluster/dispatch/networks", "it says what agents are told of networks"},
	{"cluster/dispatch/networks", "cluster", "it tells of the cluster's networks in its messages"},
	{"cluster/dispatch/networks", "store", "what is told follows from a View, and from what changes in it"},
	{"cluster/dispatch/liveness", "cluster", "it decides about the cluster's nodes by what managers relay"},
	{"cluster/api", "cluster", "it shows the cluster's objects"},
	{"cluster/api", "store", "reads are Views, writes are Updates"},
	{"cluster/standing", "cluster", "it counts the cluster's tasks"},
	{"cluster/standing", "store", "what it says follows from a View"},
	{"cluster/imagewatch", "cluster", "what a moved tag makes of a service is one of the cluster's changes"},
	{"cluster/imagewatch", "store", "what is due follows from a View, and is decided again in the Update"},
	{"cluster/api", "cluster/imagewatch", "registries are asked as for clients, and what moved is checked as what clients write"},
	{"cluster/api", "cluster/api/console", "pages are served as the API is"},
	{"cluster/api/console", "cluster", "it shows the cluster's objects"},
	{"cluster/api/console", "cluster/standing", "it shows how services stand"},
	{"cluster/api/console", "cluster/timeline", "it shows what the managers did"},
	{"cluster/api/console", "cluster/svg", "its pages have the pattern that the timeline's drawing fills with"},
	{"cluster/api/console", "store", "pages are made from Views"},
	{"cluster/api", "scheduler/placement", "a plan says which tasks would wait for a node"},
	{"cluster/api", "scheduler/address", "a spec's addresses and ports are chosen in the Update that writes it"},

	{"cluster/manager", "cluster", "it turns members into nodes"},
	{"cluster/manager", "store", "it raises the store and its log"},
	{"cluster/manager", "store/seal", "it holds the keys of the log"},
	{"cluster/manager", "scheduler", "the leader schedules"},
	{"cluster/manager", "cluster/standing", "services that are short of tasks are problems"},
	{"cluster/manager", "cluster/api", "a manager answers forwarded requests"},
	{"cluster/manager", "cluster/dispatch", "a manager serves agents"},
	{"cluster/manager", "cluster/ca", "the leader issues certificates"},
	{"cluster/manager", "cluster/manager/campaign", "it stands for election"},
	{"cluster/manager", "cluster/manager/peers", "it reaches other managers, and lets callers in"},
	{"cluster/manager/peers", "cluster", "it refuses and gives up in the cluster's errors"},
	{"cluster/manager/peers", "cluster/ca", "both ends show certificates"},
	{"cluster/manager/campaign", "cluster", "managers ask each other for their health"},
	{"cluster/manager", "cluster/timeline", "it keeps what it does, and merges what all did"},
	{"cluster/manager/peers", "cluster/timeline", "votes are asked for and given there"},
	{"cluster/manager/campaign", "cluster/timeline", "it tells whom it misses, and what it decides"},
	{"cluster/timeline", "cluster/svg", "it draws what it tells"},
	{"cmd/lab/report", "cluster/svg", "a round is drawn as a timeline is"},
	{"cmd/lab/report", "cluster/timeline", "what the managers say of a round is drawn as everywhere"},
	{"cmd/lab", "cluster/timeline", "it asks the managers what they did"},
	{"cluster/api", "cluster/timeline", "it shows what all managers did"},
	{"cmd/skep", "cluster/timeline", "it tells it in words, and draws it"},
	{"cluster/manager", "cluster/gossip", "liveness takes the hint of gossip"},

	{"agent", "cluster", "it takes assignments and sends reports"},
	{"agent", "agent/network", "it runs the node's plane by what managers tell"},
	{"agent", "agent/network/dns", "it says what the name server answers from"},
	{"agent", "store/seal", "its own record is sealed like the log"},
	{"agent/docker", "cluster", "it runs the cluster's tasks"},
	{"agent/docker", "agent", "it is a Driver"},
	{"agent/docker", "agent/network", "the engine's networks adopt its bridges, containers have its MACs"},
	{"agent/simulate", "cluster", "it runs the cluster's tasks"},
	{"agent/simulate", "agent", "it is a Driver"},
	{"agent/simulate", "agent/network", "its networks have bridges"},

	{"agent/network", "cluster", "it waits and signals as all do, and knows nodes' keys"},
	{"agent/network/simulate", "agent/network", "it is a Plane"},
	{"agent/network/linux", "agent/network", "it is a Plane"},
	{"agent/network/linux", "cluster", "it tells the addresses in use as nodes do"},
	{"agent/network/dns", "cluster", "its file is encoded and replaced as all are"},
	{"agent/network/dns", "agent/network/helper", "its process outlives the daemon"},
	{"agent/network/helper", "cluster", "what is said at the door is encoded as all is"},
	{"agent/network/wire", "agent/network/helper", "its process outlives the daemon"},
	{"agent/network/networktest", "agent/network", "it draws what a Plane is to make"},
	{"agent/network/networktest", "cluster", "nodes have keys"},

	{"cluster/node", "cluster", "it answers init, join and leave in the cluster's words"},
	{"cluster/node", "cluster/manager", "it runs a manager while its role says so"},
	{"cluster/node", "cluster/ca", "it holds the node's identity"},
	{"cluster/node", "cluster/gossip", "every node takes part in gossip"},
	{"cluster/node", "cluster/api", "every node serves the API"},
	{"cluster/node", "scheduler/address", "a new cluster has an ingress network"},
	{"cluster/node", "agent", "every node has an agent"},
	{"cluster/node", "agent/network", "a node that leaves clears its networks"},
	{"cluster/node", "agent/network/dns", "it passes on what its agent says of names"},
	{"cluster/node", "store/seal", "it opens the agent's sealed record"},

	{"cluster/clustertest", "cluster", "scenarios speak of nodes and tasks"},
	{"cluster/clustertest", "cluster/node", "it runs whole nodes in one process"},
	{"cluster/clustertest", "cluster/gossip", "its own gossip takes the place of the real one"},
	{"cluster/clustertest", "cluster/trace", "its machines' spans go to the test"},
	{"cluster/clustertest", "store", "Same compares the managers' states"},
	{"cluster/clustertest", "agent/simulate", "its tasks run nowhere"},
	{"cluster/clustertest", "agent/network", "it knows what each node's plane should have"},
	{"cluster/clustertest", "agent/network/dns", "it knows what each node's names should be"},
	{"cluster/clustertest", "agent/network/simulate", "its networks carry nothing"},

	{"cmd/skep", "cluster", "it shows the cluster's status"},
	{"cmd/skep", "cmd/skep/stack", "it deploys what that loads"},
	{"cmd/skep/stack", "cluster", "it asks for plans, and shows them"},
	{"cmd/skep", "cluster/api/console", "it is the way of a browser to the node's console"},
	{"cmd/skep", "cluster/node", "the daemon is a node"},
	{"cmd/skep", "agent", "the daemon chooses a Driver"},
	{"cmd/skep", "agent/network/dns", "it is the process that answers names, and the daemon keeps one"},
	{"cmd/skep", "agent/network/wire", "it is the process that encrypts where the kernel doesn't"},
	{"cmd/skep", "agent/network/helper", "the daemon keeps both processes"},
	{"cmd/skep", "agent/docker", "--driver docker"},
	{"cmd/skep", "agent/simulate", "--driver simulate"},
	{"cmd/skep", "agent/network", "the daemon chooses a Plane"},
	{"cmd/skep", "agent/network/linux", "--driver docker, where the kernel can"},
	{"cmd/skep", "agent/network/simulate", "--driver simulate"},
	{"cmd/skep", "cmd/skep/up", "it makes machines a cluster, and is what looks at them there"},
	{"cmd/skep/up", "cluster", "it goes by what managers say of the cluster"},
	{"cmd/lab", "cluster", "experiments read the cluster's status"},
	{"cmd/lab", "cmd/lab/crowd", "its agents by the thousand are processes of the lab's"},
	{"cmd/lab/crowd", "agent", "it runs many"},
	{"cmd/lab/crowd", "agent/simulate", "their containers run nowhere"},
	{"cmd/lab/crowd", "agent/network/simulate", "their networks carry nothing"},
	{"cmd/lab/crowd", "cluster", "addresses of managers, tokens and builds"},
	{"cmd/lab/crowd", "cluster/ca", "each has a key and a certificate"},
	{"cmd/lab/crowd", "cluster/manager", "they join at the control port, and have sessions there"},
	{"cmd/lab", "cluster/clustertest", "scenarios that need no real processes"},
	{"cmd/lab", "cmd/lab/scenario", "it runs what a file says"},
	{"cmd/lab", "cmd/lab/report", "it records and shows what happened"},
	{"cmd/lab/report", "cmd/lab/scenario", "values stand beside the bounds of the scenario"},
}

// pkg is what `go list` tells of a package.
type pkg struct {
	ImportPath   string
	Doc          string
	Name         string
	GoFiles      []string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// list returns all packages of the project. It is the Go tool's own answer, so build
// tags and generated files count as they do in a build.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Name,GoFiles,Dir,Imports,TestImports,XTestImports", "skep/...")
	out, err := cmd.Output()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		t.Fatalf("go list: %v: %s", err, exit.Stderr)
	} else if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// own keeps the project's packages of a list of imports, without the module path.
func own(imports []string) []string {
	var own []string
	for _, path := range imports {
		if name, ok := strings.CutPrefix(path, "skep/"); ok {
			own = append(own, name)
		}
	}
	return own
}

func TestArrows_OnlyTheAllowedImports(t *testing.T) {
	allowed := map[string][]string{}
	for _, a := range arrows {
		if a.why == "" {
			t.Errorf("%s → %s: say why", a.from, a.to)
		}
		allowed[a.from] = append(allowed[a.from], a.to)
	}
	for _, p := range list(t) {
		from := strings.TrimPrefix(p.ImportPath, "skep/")
		for _, to := range own(p.Imports) {
			if !slices.Contains(allowed[from], to) {
				t.Errorf("%s imports %s: not an arrow of the table in cmd/arrows_test.go", from, to)
			}
		}
	}
}

// Tests may use any package that is no further up: a test of the store that needs a
// scheduler tests something else.
func TestArrows_TestsDontImportUpwards(t *testing.T) {
	above := map[string][]string{} // package → those that may import it, directly or not
	var climb func(p string, seen map[string]bool)
	climb = func(p string, seen map[string]bool) {
		for _, a := range arrows {
			if a.to == p && !seen[a.from] {
				seen[a.from] = true
				climb(a.from, seen)
			}
		}
	}
	for _, a := range arrows {
		seen := map[string]bool{}
		climb(a.to, seen)
		for p := range seen {
			above[a.to] = append(above[a.to], p)
		}
	}
	for _, p := range list(t) {
		from := strings.TrimPrefix(p.ImportPath, "skep/")
		for _, to := range own(append(p.TestImports, p.XTestImports...)) {
			if slices.Contains(above[from], to) {
				t.Errorf("the tests of %s import %s, which stands above it", from, to)
			}
		}
	}
}

func TestArrows_NoCycleInTheTable(t *testing.T) {
	const walking, done = 1, 2
	state := map[string]int{}
	var walk func(string)
	walk = func(p string) {
		switch state[p] {
		case walking:
			t.Fatalf("the table allows a cycle through %s", p)
		case done:
			return
		}
		state[p] = walking
		for _, a := range arrows {
			if a.from == p {
				walk(a.to)
			}
		}
		state[p] = done
	}
	for _, a := range arrows {
		walk(a.from)
	}
}
