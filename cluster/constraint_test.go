package cluster

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func constrainedNode() *Node {
	n := &Node{ID: "Node1", Role: swarm.NodeRoleManager}
	n.Spec.Labels = map[string]string{"disk": "SSD", "Zone": "a", "slots": "12", "empty": ""}
	n.Description.Hostname = "Host-1"
	n.Description.Platform = swarm.Platform{OS: "linux", Architecture: "x86_64"}
	n.Description.Engine.Labels = map[string]string{"gpu": "yes"}
	n.Status.Addr = "10.1.2.3"
	return n
}

func TestConstraint_Match(t *testing.T) {
	for text, want := range map[string]bool{
		"node.id==node1":               true,
		"node.id!=node1":               false,
		"NODE.ID == Node1":             true,
		"node.hostname==host-1":        true,
		"node.hostname!=other":         true,
		"node.role==manager":           true,
		"node.role==worker":            false,
		"node.ip==10.1.2.3":            true,
		"node.ip!=10.1.2.3":            false,
		"node.ip==10.1.0.0/16":         true,
		"node.ip==10.2.0.0/16":         false,
		"node.ip!=10.2.0.0/16":         true,
		"node.ip!=nonsense":            false,
		"node.platform.os==Linux":      true,
		"node.platform.arch==x86_64":   true,
		"node.platform.arch!=aarch64":  true,
		"node.labels.disk==ssd":        true,
		"Node.Labels.disk==ssd":        true,
		"node.labels.Disk==ssd":        false,
		"node.labels.Zone==a":          true,
		"node.labels.absent==x":        false,
		"node.labels.absent!=x":        true,
		"engine.labels.gpu==yes":       true,
		"engine.labels.gpu!=yes":       false,
		"node.unknown==x":              false,
		"node.unknown!=x":              false,
		"node.labels.disk == ssd":      true,
		"node.labels.disk==ssd|nvme":   false,
		"node.labels.disk==ss.*":       false,
		"  node.hostname  ==  host-1 ": true,

		"node.labels.disk in (hdd, ssd)":          true,
		"node.labels.disk IN(hdd,nvme)":           false,
		"node.labels.disk notin (hdd,nvme)":       true,
		"node.labels.disk notin (hdd,ssd)":        false,
		"node.labels.absent in (a,b)":             false,
		"node.labels.absent notin (a,b)":          true,
		"node.ip in (10.2.0.0/16, 10.1.2.3)":      true,
		"node.ip notin (10.2.0.0/16,10.1.0.0/16)": false,
		"node.unknown notin (a,b)":                false,
		"exists node.labels.disk":                 true,
		"exists node.labels.empty":                true,
		"node.labels.absent exists":               false,
		"!exists node.labels.absent":              true,
		"node.labels.disk !exists":                false,
		"exists engine.labels.gpu":                true,
		"exists node.hostname":                    true,
		"exists node.unknown":                     false,
		"!exists node.unknown":                    false,
		"node.labels.slots>11.5":                  true,
		"node.labels.slots > 12":                  false,
		"node.labels.slots<13":                    true,
		"node.labels.slots<1e1":                   false,
		"node.labels.disk<5":                      false,
		"node.labels.absent>-1":                   false,
		"node.hostname=~Host-[0-9]+":              true,
		"node.hostname =~ Host":                   false,
		"node.hostname =~ host-1":                 false,
		"node.hostname =~ (?i)host-1":             true,
		"node.hostname !~ Host-[2-9]":             true,
		"node.hostname=~Host-1|x==y":              true,
		"node.labels.absent=~.+":                  false,
		"node.labels.absent!~.+":                  true,
	} {
		constraints, err := ParseConstraints([]string{text})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := constraints[0].Match(constrainedNode()); got != want {
			t.Errorf("%s matches: %v", text, got)
		}
	}
}

func TestParseConstraints_RefusesNonsense(t *testing.T) {
	for _, text := range []string{"", "node.id", "node.id=x", "==x", "node.id==", "a==x", "node id==x", "node.id==x~y", "node.id<3", "1node==x", "node.labels.a!=b=c",
		"node.labels.a<b", "node.labels.a>NaN", "node.labels.a<=3", "node.labels.a in a,b", "node.labels.a in (a,b", "node.labels.a in ()", "node.labels.a in (a,,b)",
		"node.labels.a in (a) b", "exists", "exists x", "exists node.id node.ip", "!exists", "!node.id", "node.labels.a =~ (", "node.labels.a =~",
		"node.labels.a =~ " + strings.Repeat("x", 257)} {
		if constraints, err := ParseConstraints([]string{"node.id==ok", text}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, %v", text, constraints, err)
		}
	}
}

func TestConstraint_StringParsesAgain(t *testing.T) {
	for _, text := range []string{"node.id==x", "node.labels.a!=b c", "node.labels.a in (b,c)", "node.labels.a notin (b)", "exists node.id", "!exists node.labels.a",
		"node.labels.a<3", "node.labels.a>3", "node.labels.a=~b|c", "node.labels.a!~b"} {
		if constraints, err := ParseConstraints([]string{text}); err != nil || constraints[0].String() != text {
			t.Errorf("%s: %v, %v", text, constraints, err)
		}
	}
}

func TestCheckConstraints_RefusesWhatNoNodeMeets(t *testing.T) {
	for text, want := range map[string]string{
		"node.unknown==x":             "there are node.id, node.hostname",
		"!exists node.labels.":        "there are node.id, node.hostname",
		"node.ip!=nonsense":           "'nonsense' is neither an IP address nor a network",
		"node.ip in (10.0.0.1,x)":     "'x' is neither",
		"node.labels.a~b":             "it is KEY==VALUE, KEY!=VALUE, KEY in (A,B)",
		"node.labels.a=~b":            "",
		"node.ip=~10[.].*":            "",
		"node.ip == 10.1.0.0/16":      "",
		"Engine.Labels.gpu in (a, b)": "",
	} {
		err := CheckConstraints([]string{"node.id==ok", text})
		if (err == nil) != (want == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestPlatformMatches(t *testing.T) {
	n := constrainedNode()
	for _, c := range []struct {
		want      bool
		platforms []swarm.Platform
	}{
		{true, nil},
		{true, []swarm.Platform{{}}},
		{true, []swarm.Platform{{OS: "linux", Architecture: "amd64"}}},
		{true, []swarm.Platform{{OS: "Linux"}}},
		{false, []swarm.Platform{{OS: "linux", Architecture: "arm64"}}},
		{false, []swarm.Platform{{OS: "windows", Architecture: "amd64"}}},
		{true, []swarm.Platform{{OS: "windows", Architecture: "amd64"}, {OS: "linux", Architecture: "x86_64"}}},
	} {
		if got := PlatformMatches(n, c.platforms); got != c.want {
			t.Errorf("%+v: %v", c.platforms, got)
		}
	}
}

// Constraints are read again and again, and compared with each node. Regular expressions
// of few bytes can have many steps.
func TestCheckConstraints_TooMuch(t *testing.T) {
	list := func(n int, text string) (texts []string) {
		for range n {
			texts = append(texts, text)
		}
		return texts
	}
	large := "node.hostname=~" + strings.Repeat("x{999}", 40)
	for what, texts := range map[string][]string{
		"many":                       list(MaxConstraints+1, "node.id!=a"),
		"long ones":                  list(10, "node.id in ("+strings.Repeat("a,", 1000)+"a)"),
		"one large expression":       {large},
		"3,000 large expressions":    list(3000, large),
		"200 of some size":           list(200, `node.hostname=~(a|b|c){10}`),
		"one that isn't of one step": {`node.labels.a !~ ((x{10}){10}){10}x{999}`},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := CheckConstraints(texts)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 64<<20 {
			t.Errorf("%s: took %d MB", what, taken>>20)
		}
	}
	enough := append(list(100, "node.labels.zone in (a,b,c,d,e)"), list(20, `node.hostname=~(web|db)-[0-9]{1,3}\.example\.com`)...)
	if err := CheckConstraints(enough); err != nil {
		t.Error(err)
	}
}
