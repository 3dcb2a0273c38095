package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"skep/cluster"
)

const usage = `[{"TaskID":"t1","Name":"web.1.t1","Service":"web","ServiceID":"s","NodeID":"n1","Hostname":"one","Usage":[
{"At":"2026-01-01T12:00:00Z","CPU":1000000000,"Memory":1,"MemoryLimit":2},
{"At":"2026-01-01T12:00:10Z","CPU":6000000000,"Memory":1048576,"MemoryLimit":4194304,"Received":1000,"Sent":2000,"Read":3000,"Written":4000,"Processes":3}]},
{"TaskID":"t2","Name":"web.2.t2","Service":"web","ServiceID":"s","NodeID":"n2","Hostname":"two","Err":"node n2 has no session"}]`

func TestStats(t *testing.T) {
	node := newFakeNode(t)
	node.answer("GET /skep/v1/usage", usage)
	env := []string{"SKEP_HOST=" + node.url}
	r := skep(t, env, "service", "stats", "--no-stream", "web")
	for _, line := range []string{
		"TASK NODE CPU % MEM USAGE / LIMIT MEM % NET I/O BLOCK I/O PIDS",
		"web.1.t1 one 50.00% 1MiB / 4MiB 25.00% 1kB / 2kB 3kB / 4kB 3",
		"web.2.t2 two - - - - - - node n2 has no session",
		"TOTAL 2 tasks 50.00% 1MiB / 4MiB 25.00% 1kB / 2kB 3kB / 4kB 3 not all tasks could be asked",
	} {
		if r.status != 0 || !hasLine(r.stdout, line) {
			t.Errorf("no line %q in\n%s%s", line, r.stdout, r.stderr)
		}
	}
	if asked := node.asked("/skep/v1/usage"); len(asked) != 1 || asked[0].URL.RawQuery != "service=web" {
		t.Errorf("asked %+v", asked)
	}
	for args, want := range map[string]string{
		"node stats --no-stream": "one 1 50.00%", "service stats --no-stream --json": `"CPU": 50`, "node stats --json --history n1": `"Received": 1000`,
		"service stats --no-stream --format {{.Service}}/{{.MemPerc}}": "web/25.00%",
	} {
		if r := skep(t, env, strings.Fields(args)...); r.status != 0 || !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
	for args, says := range map[string]string{
		"service stats --history web": "--history is for --json", "service stats --json --history": "name it", "node stats --json --format x": "not both", "node stats --format {{": "read --format",
		"node stats a b": "at most 1 argument",
	} {
		if r := skep(t, env, strings.Fields(args)...); r.status == 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestRowOf_ComparesWithTheLastLook(t *testing.T) {
	at := func(s int, cpu time.Duration) cluster.Usage {
		return cluster.Usage{At: time.Unix(int64(s), 0), CPU: cpu}
	}
	for _, test := range []struct {
		name   string
		looks  []cluster.Usage
		before cluster.Usage
		cpu    float64
		known  bool
	}{
		{"no look before", []cluster.Usage{at(10, time.Second)}, cluster.Usage{}, 0, false},
		{"the node's", []cluster.Usage{at(8, time.Second), at(10, 2*time.Second)}, cluster.Usage{}, 50, true},
		{"its own", []cluster.Usage{at(1, 0), at(10, 5*time.Second)}, at(8, time.Second), 200, true},
		{"the same look", []cluster.Usage{at(10, time.Second)}, at(10, time.Second), 0, false},
	} {
		if row := rowOf(cluster.TaskUsage{Usage: test.looks}, test.before); row.CPU != test.cpu || row.CPUKnown != test.known {
			t.Errorf("%s: %+v", test.name, row)
		}
	}
}

// Tasks without a limit may take a node's memory together, not each for itself.
func TestStats_SumsAreNoMoreThanThereIs(t *testing.T) {
	node := newFakeNode(t)
	look := func(task, on string, memory, limit int) string {
		return fmt.Sprintf(`{"TaskID":%q,"Name":%q,"Hostname":%q,"NodeMemory":1000,"Usage":[{"At":"2026-01-01T12:00:00Z","MemoryLimit":1},{"At":"2026-01-01T12:00:10Z","Memory":%d,"MemoryLimit":%d}]}`, task, task, on, memory, limit)
	}
	node.answer("GET /skep/v1/usage", "["+strings.Join([]string{look("a", "one", 100, 1000), look("b", "one", 100, 1000), look("c", "two", 100, 300), look("d", "two", 100, 100)}, ",")+"]")
	env := []string{"SKEP_HOST=" + node.url}
	for command, lines := range map[string][]string{
		"service": {"a one 0.00% 100B / 1000B", "TOTAL 4 tasks 0.00% 400B / 1.367KiB 28.57%"},
		"node":    {"one 2 0.00% 200B / 1000B 20.00%", "two 2 0.00% 200B / 400B 50.00%", "TOTAL 4 0.00% 400B / 1.367KiB 28.57%"},
	} {
		r := skep(t, env, command, "stats", "--no-stream")
		said := strings.Join(strings.Fields(r.stdout), " ")
		for _, line := range lines {
			if r.status != 0 || !strings.Contains(said, line) {
				t.Errorf("%s: no line %q in\n%s%s", command, line, r.stdout, r.stderr)
			}
		}
	}
}

func TestFitScreen(t *testing.T) {
	const text = "HEAD   X\none    1  \ntwo    2\nthree  3\nTOTAL  6\n"
	for _, c := range []struct {
		high, wide int
		want       string
	}{
		{0, 0, "HEAD   X\none    1\ntwo    2\nthree  3\nTOTAL  6\n"},
		{6, 8, "HEAD   X\none    1\ntwo    2\nthree  3\nTOTAL  6\n"},
		{5, 8, "HEAD   X\none    1\n… 2 more\nTOTAL  6\n"},
		{4, 6, "HEAD …\n… 3 m…\nTOTAL…\n"},
		{2, 8, "HEAD   X\none    1\ntwo    2\nthree  3\nTOTAL  6\n"},
	} {
		if got := fitScreen(text, c.high, c.wide); got != c.want {
			t.Errorf("%d by %d: got\n%swant\n%s", c.high, c.wide, got, c.want)
		}
	}
}
