package api

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

func TestDependsOn_IsChecked(t *testing.T) {
	b := newBench(t)
	depends := func(on string) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.Labels["skep.depends-on"] = on }
	}
	inStack := func(stack string) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.Labels[cluster.LabelStack] = stack }
	}
	for on, says := range map[string]string{
		"":                      "it takes services and what they must be, such as db:healthy,migrate:completed,cache:started",
		"db":                    "it takes services and what they must be",
		"db:well":               "it takes services and what they must be",
		"db:healthy,":           "it takes services and what they must be",
		"d b:healthy":           "it takes services and what they must be",
		"db:healthy,DB:started": "it takes each service once, and DB is there twice",
		"app:healthy":           "service app would wait for itself: app -> app",
	} {
		b.do("POST", "/services/create", spec("app", depends(on))).want(t, 400, says)
	}
	b.do("POST", "/services/create", spec("app", func(s *swarm.ServiceSpec) { s.Labels["skep.depends-on.timeout"] = "10m" })).want(t, 400, "label skep.depends-on.timeout: it has no meaning without skep.depends-on")

	// One that isn't there yet is no mistake, but then the circle is closed by the other.
	b.create(spec("app", depends("db:healthy, cache:started")))
	b.create(spec("db", depends("disk:completed")))
	b.do("POST", "/services/create", spec("Disk", depends("app:started"))).want(t, 400, "service Disk would wait for itself: Disk -> app -> db -> disk")
	b.create(spec("disk"))
	service := b.inspect("disk")
	service.Spec.Labels["skep.depends-on"] = "APP:started"
	b.post("disk", "", service.Spec).want(t, 400, "service disk would wait for itself: disk -> APP -> db -> disk")

	// In a stack names are those of the stack.
	b.create(spec("shop_app", inStack("shop"), depends("db:healthy")))
	b.do("POST", "/services/create", spec("shop_db", inStack("shop"), depends("app:healthy"))).want(t, 400, "shop_db -> shop_app -> shop_db")
	b.create(spec("shop_db", inStack("shop"), depends("disk:healthy")))
}
