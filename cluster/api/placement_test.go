package api

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func TestAffinity(t *testing.T) {
	b := newBench(t)
	labelled := func(name, label, value string) swarm.ServiceSpec {
		return spec(name, func(s *swarm.ServiceSpec) { s.Labels = map[string]string{label: value} })
	}
	db := b.create(spec("db"))
	for _, c := range []struct{ label, value, text string }{
		{"skep.affinity", "", "names or IDs of services, with commas between them"},
		{"skep.affinity", "db,,web", "names or IDs of services, with commas between them"},
		{"skep.affinity", "queue", "label skep.affinity: there is no service queue: give the name or the whole ID"},
		{"skep.anti-affinity", "db, queue", "label skep.anti-affinity: there is no service queue"},
		{"skep.affinity", "Web", "label skep.affinity: Web is the service itself: with --replicas-max-per-node 1"},
		{"skep.near", "db", "skep knows no such label of a service; it knows skep.affinity, skep.anti-affinity"},
	} {
		b.do("POST", "/services/create", labelled("web", c.label, c.value)).want(t, 400, c.text)
	}
	both := labelled("web", "skep.affinity", "db")
	both.Labels["skep.anti-affinity"] = db
	b.do("POST", "/services/create", both).want(t, 400, "label skep.anti-affinity: "+db+" is in skep.affinity too")

	b.create(labelled("web", "skep.affinity", db))
	b.create(labelled("cache", "skep.affinity", "web"))
	change := func(name, label, value string) answer {
		s := b.inspect(name).Spec
		s.Labels = map[string]string{label: value}
		return b.post(name, "", s)
	}
	change("db", "skep.affinity", "cache").want(t, 400, "label skep.affinity: web belongs to db in turn")
	change("db", "skep.affinity", "db").want(t, 400, "is the service itself")
	change("db", "skep.anti-affinity", "cache").want(t, 200, "")

	// What names a service that is gone by now may stay, but not come anew.
	b.do("DELETE", "/services/web", nil).want(t, 200, "")
	change("cache", "skep.affinity", "web").want(t, 200, "")
	change("cache", "skep.affinity", "web,db").want(t, 400, "there is no service web")
	change("cache", "skep.affinity", "db").want(t, 200, "")
	b.post("cache", "rollback=previous", spec("cache")).want(t, 400, "can't go back to its previous spec: label skep.affinity: there is no service web")
}
