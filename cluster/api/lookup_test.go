package api

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/store"
)

// TestLookup_Order: a whole ID, then a whole name, then the beginning of an ID, whatever
// else is called so; the beginning of a name never.
func TestLookup_Order(t *testing.T) {
	b := newBench(t)
	first := b.create(spec("first"))
	short := b.create(spec(first[:6])) // called as another's ID begins
	whole := b.create(spec(first))     // called as another's whole ID
	secret := b.secret("first", "x")
	shortSecret := b.secret(secret[:6], "x")
	config := b.config("first", "x")
	shortConfig := b.config(config[:6], "x")
	b.update(func(tx *store.Tx) error {
		one, two := *tx.Node(nodeID(1)), *tx.Node(nodeID(2))
		one.Description.Hostname, two.Description.Hostname = nodeID(2), nodeID(3)[:24]
		if err := tx.Put(&one); err != nil {
			return err
		}
		return tx.Put(&two)
	})
	for path, want := range map[string]string{
		"/services/" + first: first, "/services/" + first[:6]: short, "/services/" + first[:7]: first, "/services/" + whole: whole,
		"/secrets/" + secret: secret, "/secrets/" + secret[:6]: shortSecret, "/secrets/" + secret[:7]: secret,
		"/configs/" + config: config, "/configs/" + config[:6]: shortConfig, "/configs/" + config[:7]: config,
		"/nodes/" + nodeID(2): nodeID(2), "/nodes/" + nodeID(3)[:24]: nodeID(2), "/nodes/" + nodeID(3): nodeID(3),
	} {
		var found struct{ ID string }
		if b.do("GET", path, nil).want(t, 200, "").into(t, &found); found.ID != want {
			t.Errorf("%s finds %s, want %s", path, found.ID, want)
		}
	}
	b.update(func(tx *store.Tx) error {
		one, two := *tx.Node(nodeID(1)), *tx.Node(nodeID(2))
		one.Description.Hostname, two.Description.Hostname = "twin", "twin"
		if err := tx.Put(&one); err != nil {
			return err
		}
		return tx.Put(&two)
	})
	b.do("GET", "/nodes/twin", nil).want(t, 400, "node twin is ambiguous (2 matches found): use its whole ID")
	for _, path := range []string{"/services/fir", "/secrets/fir", "/configs/fir", "/nodes/none", "/tasks/none"} {
		b.do("GET", path, nil).want(t, 404, "not found")
	}
	// A filter takes the beginning of names as well, and so does not tell them apart.
	var services []swarm.Service
	b.do("GET", `/services?filters={"name":["`+first[:6]+`"]}`, nil).into(t, &services)
	if len(services) != 2 {
		t.Errorf("%d services are called so", len(services))
	}
}

// TestFilters_AreRefusedInOneWay: what isn't JSON, and keys that no list has.
func TestFilters_AreRefusedInOneWay(t *testing.T) {
	b := newBench(t)
	for path, keys := range map[string][]string{
		"/services": {"name", "id", "label", "mode", "runtime"},
		"/tasks":    {"name", "id", "label", "service", "node", "desired-state", "runtime", "_up-to-date"},
		"/nodes":    {"name", "id", "label", "node.label", "role", "membership"},
		"/secrets":  {"names", "name", "id", "label"},
		"/configs":  {"name", "id", "label"},
		"/events": {"type", "event", "scope", "daemon", "container", "plugin", "volume", "network", "image", "node", "service",
			"secret", "config", "label"},
	} {
		query := path + "?"
		if path == "/events" {
			query = path + "?since=1&until=2&"
		}
		for _, bad := range []string{`{`, `[]`, `7`, `{"name":7}`, `{"name":[7]}`, `{"name":{"a":"b"}}`} {
			b.do("GET", query+"filters="+bad, nil).want(t, 400, "invalid filter")
		}
		for _, wrong := range []string{"colour", "Name", ""} {
			b.do("GET", query+`filters={"`+wrong+`":["a"]}`, nil).want(t, 400, "invalid filter '"+wrong+"'")
		}
		for _, key := range keys {
			value := map[string]string{
				"service": "", "node": "", "role": "worker", "membership": "accepted", "desired-state": "running",
			}
			word, ok := value[key]
			if !ok || path == "/events" {
				word = "a"
			}
			if word == "" {
				continue // must exist: TestTasks
			}
			b.do("GET", query+`filters={"`+key+`":["`+word+`"]}`, nil).want(t, 200, "")
			b.do("GET", query+`filters={"`+key+`":{"`+word+`":true}}`, nil).want(t, 200, "")
		}
		if path != "/events" {
			for _, nothing := range []string{"", "{}", "null"} {
				b.do("GET", query+"filters="+nothing, nil).want(t, 200, "[")
			}
		}
	}
}
