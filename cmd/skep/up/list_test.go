package up

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func TestParse_RefusesWhatCantBeMeant(t *testing.T) {
	for text, says := range map[string]string{
		"":                                                 "there are no machines",
		"machines: [{host: a, role: worker}]":              "no manager",
		"machines: [{host: a}, {host: a}]":                 "twice",
		"machines: [{host: -oProxyCommand=x}]":             "want what ssh takes",
		"machines: [{host: 'a b'}]":                        "want what ssh takes",
		"machines: [{host: 'a;reboot'}]":                   "want what ssh takes",
		"machines: [{host: a, role: boss}]":                "want manager or worker",
		"machines: [{host: a, addr: example.org}]":         "want the IP address",
		"machines: [{host: a, addr: 127.0.0.1}]":           "want the IP address",
		"machines: [{host: a, availability: off}]":         "want active, pause or drain",
		"machines: [{host: a, labels: {'a b': c}}]":        "without spaces",
		"machines: [{host: a, labels: {skep.nothing: c}}]": "no such label",
		"machines: [{host: a, port: 22}]":                  "field port not found",
		"hosts: [a]":                                       "field hosts not found",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want something with %q", text, err, says)
		}
	}
}

// What somebody wrote in the file stays as it is when machines are added.
func TestEdit_KeepsWhatIsThere(t *testing.T) {
	const text = `# Ours.
machines:
  - host: a # in the cellar
    labels: {zone: x}
`
	l := list(t, text)
	labels, err := ParseLabels([]string{"zone=west", "old-", "a-=b=c"})
	if err != nil {
		t.Fatal(err)
	}
	all, added, err := l.With([]Machine{{Host: "a", Role: swarm.NodeRoleManager}, {Host: "b", Role: swarm.NodeRoleWorker, Labels: labels}})
	if err != nil || !added {
		t.Fatal(added, err)
	}
	got, err := Edit([]byte(text), all)
	if err != nil {
		t.Fatal(err)
	}
	want := text + `  - host: b
    role: worker
    labels:
      a-: b=c
      old: null
      zone: west
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again, err := Parse(got); err != nil {
		t.Error(err)
	} else if _, added, err := again.With(all.Machines); err != nil || added {
		t.Errorf("named again: %v, %v", added, err)
	}
	fresh, err := Edit(nil, all)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse(fresh); err != nil || len(again.Machines) != 2 || !strings.HasPrefix(string(fresh), "# The machines") {
		t.Errorf("%v: %s", err, fresh)
	}
}

func TestWith_RefusesWhatTheListSaysOtherwise(t *testing.T) {
	l := list(t, "machines: [{host: a, labels: {y: '', z: null}}, {host: b, role: worker}]")
	empty := ""
	if _, added, err := l.With([]Machine{{Host: "a", Role: swarm.NodeRoleManager}}); err != nil || added {
		t.Errorf("what is there: %v, %v", added, err)
	}
	for _, m := range []Machine{{Host: "b", Role: swarm.NodeRoleManager}, {Host: "a", Role: swarm.NodeRoleManager, Labels: map[string]*string{"x": &empty}},
		{Host: "a", Role: swarm.NodeRoleManager, Labels: map[string]*string{"z": &empty}}, {Host: "a", Role: swarm.NodeRoleManager, Labels: map[string]*string{"y": nil}}} {
		if _, _, err := l.With([]Machine{m}); err == nil || !strings.Contains(err.Error(), "change that there") {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

func TestParseLabels_RefusesWhatIsNeither(t *testing.T) {
	for _, word := range []string{"zone", "", "-x"} {
		if _, err := ParseLabels([]string{word}); err == nil || !strings.Contains(err.Error(), "want NAME=VALUE") {
			t.Errorf("%q: %v", word, err)
		}
	}
}

// FuzzParse has anything at all for a list.
func FuzzParse(f *testing.F) {
	f.Add([]byte(fourMachines))
	f.Add([]byte("machines:\n  - &a {host: b}\n  - *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Parse(text)
		if err != nil {
			return
		}
		if _, err := Edit(text, l); err != nil && !strings.Contains(err.Error(), "read the list") {
			t.Error(err)
		}
	})
}
