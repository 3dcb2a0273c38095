package scheduler

import (
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// A secret that goes between the plan of a rollback and its write is not gone back
// to; the next plan pauses instead, without anything else happening.
func TestAbandon_NotToASecretThatWentMeanwhile(t *testing.T) {
	h := newHive(t)
	secret := &cluster.Secret{ID: "key"}
	secret.Spec.Name = "key"
	h.put(secret)
	h.put(h.node("n1"))
	refer := []*swarm.SecretReference{{SecretID: "key", SecretName: "key"}}
	h.service("web", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Secrets = refer })
	for h.settle(); h.obey(); {
		h.settle()
	}
	h.service("web", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Secrets, s.TaskTemplate.ContainerSpec.Image = nil, "bad"
		s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback, Monitor: time.Second}
	})
	removed := false
	for range 20 {
		h.loop.refresh()
		result, _ := h.loop.plan()
		for _, intent := range result.Intents {
			if _, ok := intent.(*abandon); ok {
				h.update(func(tx *store.Tx) error { tx.Delete(tx.Secret("key")); return nil })
				removed = true
			}
		}
		if _, err := Write(t.Context(), h.db, result.Intents); err != nil {
			t.Fatal(err)
		}
		h.obey()
	}
	rollout := h.db.View().Rollout("web")
	if !removed || rollout == nil || rollout.State != swarm.UpdateStatePaused || !strings.HasSuffix(rollout.Message, "what was removed: secret key") {
		t.Fatalf("removed %v, rollout %+v", removed, rollout)
	}
	if s := h.db.View().Service("web"); len(s.Spec.TaskTemplate.ContainerSpec.Secrets) > 0 {
		t.Error("the service went back")
	}
}
