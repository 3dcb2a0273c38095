package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// allow has the cluster allow host options, or not.
func (b *bench) allow(value string) answer {
	b.t.Helper()
	return b.setLabel("skep.allow-host-options", value)
}

// setLabel sets a label of the cluster as `skep cluster update` does.
func (b *bench) setLabel(name, value string) answer {
	b.t.Helper()
	var found swarm.Swarm
	b.do("GET", "/swarm", nil).want(b.t, 200, "").into(b.t, &found)
	found.Spec.Labels[name] = value
	return b.do("POST", fmt.Sprintf("/swarm/update?version=%d", found.Version.Index), found.Spec)
}

func TestHostOptions_OnlyWhileTheClusterAllowsThem(t *testing.T) {
	b := newBench(t)
	const refusal = "this cluster doesn't allow them: allow them with `skep cluster update --allow-host-options`"
	plain := spec("web")
	privileged := spec("web", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"skep.host.privileged": "true"} })
	b.do("POST", "/services/create", privileged).want(t, 403, refusal)
	id := b.create(plain)
	b.post(id, "", privileged).want(t, 403, refusal)

	b.allow("perhaps").want(t, 400, `label skep.allow-host-options: \"perhaps\" won't do`)
	b.allow("true").want(t, 200, "")
	b.post(id, "", privileged).want(t, 200, "")
	if got := b.view().Service(id); got.Revision != 2 {
		t.Fatalf("the option made no revision: %+v", got)
	}
	b.post(id, "", plain).want(t, 200, "")

	// What was allowed once can't be rolled back to when it no longer is.
	b.allow("false").want(t, 200, "")
	b.post(id, "rollback=previous", plain).want(t, 403, refusal)
	b.post(id, "", privileged).want(t, 403, refusal)
}

func TestLabels_OfTheClusterThatSkepDoesNotKnow(t *testing.T) {
	b := newBench(t)
	var found swarm.Swarm
	b.do("GET", "/swarm", nil).want(t, 200, "").into(t, &found)
	found.Spec.Labels = map[string]string{"mine": "1", "skep.alow": "true"}
	b.do("POST", fmt.Sprintf("/swarm/update?version=%d", found.Version.Index), found.Spec).want(t, 400, "label skep.alow: skep knows no such label of a cluster")
}

func TestFence_IsChecked(t *testing.T) {
	b := newBench(t)
	create := func(value, order string) answer {
		return b.do("POST", "/services/create", spec("only-"+value+order, func(s *swarm.ServiceSpec) {
			s.Labels = map[string]string{"skep.fence": value}
			s.RollbackConfig = &swarm.UpdateConfig{Order: order}
		}))
	}
	create("yes", "").want(t, 400, `label skep.fence: \"yes\" won't do, it takes true or false`)
	create("true", "start-first").want(t, 400, "a fenced service never runs two tasks of a slot")
	create("true", "stop-first").want(t, 201, "")
	create("false", "start-first").want(t, 201, "")
}

func TestStaticAddresses_AreChecked(t *testing.T) {
	b := newBench(t)
	b.createNetwork(overlay("front"))
	create := func(value, order string) answer {
		return b.do("POST", "/services/create", spec("only-"+value+order, func(s *swarm.ServiceSpec) {
			s.Labels = map[string]string{"skep.static-addresses": value}
			s.UpdateConfig = &swarm.UpdateConfig{Order: order}
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "front"}}
		}))
	}
	create("yes", "").want(t, 400, `label skep.static-addresses: \"yes\" won't do, it takes true or false`)
	create("true", "start-first").want(t, 400, "so the service can't be updated in the order start-first: use stop-first")
	create("true", "stop-first").want(t, 201, "")
	create("false", "start-first").want(t, 201, "")
}

func TestRestartBackoff_IsChecked(t *testing.T) {
	b := newBench(t)
	delay := 20 * time.Second
	for _, c := range []struct {
		labels map[string]string
		status int
		says   string
	}{
		{map[string]string{"skep.restart.max-delay": "soon"}, 400, `label skep.restart.max-delay: \"soon\" won't do, it takes a duration such as 5m, at most 24h0m0s`},
		{map[string]string{"skep.restart.max-delay": "0s"}, 400, "won't do"},
		{map[string]string{"skep.restart.max-delay": "25h"}, 400, "won't do"},
		{map[string]string{"skep.restart.max-delay": "1m", "skep.restart.stable": "-1s"}, 400, "label skep.restart.stable"},
		{map[string]string{"skep.restart.stable": "1m"}, 400, "it has no meaning without skep.restart.max-delay"},
		{map[string]string{"skep.restart.max-delay": "19s"}, 400, "19s is less than the restart delay of 20s"},
		{map[string]string{"skep.restart.max-delay": "20s", "skep.restart.stable": "1m"}, 201, ""},
	} {
		b.do("POST", "/services/create", spec("web", func(s *swarm.ServiceSpec) {
			s.Labels = c.labels
			s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Delay: &delay}
		})).want(t, c.status, c.says)
	}
	b.do("POST", "/services/create", spec("db", func(s *swarm.ServiceSpec) {
		s.Labels = map[string]string{"skep.restart.max-delay": "4s"}
	})).want(t, 400, "4s is less than the restart delay of 5s")
}
