package api

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

func withImage(name string) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = name }
}

func (b *bench) revisions(ref string) []cluster.KeptRevision {
	b.t.Helper()
	var revisions []cluster.KeptRevision
	b.do("GET", "/skep/v1/services/"+ref+"/revisions", nil).want(b.t, 200, "").into(b.t, &revisions)
	return revisions
}

func TestListRevisions_ShowsWhatIsKeptWithoutCredentials(t *testing.T) {
	b := newBench(t)
	b.do("GET", "/skep/v1/services/web/revisions", nil).want(t, 404, "service web not found")
	id := b.create(spec("web", withImage("app:1")), "X-Registry-Auth", "canary-login")
	b.post(id, "", spec("web", withImage("app:2"))).want(t, 200, "")
	b.post(id, "", spec("web", withImage("app:2"), func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = ptr(uint64(9)) })).want(t, 200, "")
	b.post(id, "", spec("web", withImage("app:3"))).want(t, 200, "")
	got := b.revisions("web")
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	for i, want := range []struct {
		number            uint64
		image             string
		current, previous bool
	}{{3, "app:3", true, false}, {2, "app:2", false, true}, {1, "app:1", false, false}} {
		r := got[i]
		if r.Number != want.number || r.Image != want.image || r.Current != want.current || r.Previous != want.previous ||
			r.CreatedAt.IsZero() || r.TaskTemplate.ContainerSpec.Image != want.image || r.EndpointSpec == nil {
			t.Errorf("%+v", r)
		}
	}
	if body := b.do("GET", "/skep/v1/services/"+id+"/revisions", nil).body; strings.Contains(body, "canary") {
		t.Errorf("credentials are shown: %s", body)
	}
}

func TestRollbackToRevision(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web", withImage("app:1"), func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"tier": "one"} }), "X-Registry-Auth", "first")
	for i := 2; i <= 4; i++ {
		b.post(id, "", spec("web", withImage(fmt.Sprintf("app:%d", i)))).want(t, 200, "")
	}
	before := b.inspect(id)
	rollback := func(query string, headers ...string) answer {
		return b.do("POST", "/skep/v1/services/web/rollback?"+strings.ReplaceAll(query, "NOW", fmt.Sprint(b.inspect(id).Version.Index)), nil, headers...)
	}
	rollback("to=1").want(t, 400, "invalid service version ''")
	rollback("version=NOW").want(t, 400, "invalid revision ''")
	rollback("version=NOW&to=-1").want(t, 400, "invalid revision '-1'")
	rollback("version=999&to=1").want(t, 500, "update out of sequence")
	rollback("version=NOW&to=9").want(t, 404, "revision 9 of service web not found: `skep service history web` lists those that are kept")
	rollback("version=NOW&to=4").want(t, 400, "service web is at revision 4 already")
	b.do("POST", "/skep/v1/services/none/rollback?version=1&to=1", nil).want(t, 404, "service none not found")
	if now := b.inspect(id); now.Version != before.Version {
		t.Fatalf("a refused rollback changed something: %+v", now)
	}

	rollback("version=NOW&to=1").want(t, 200, "")
	now := b.inspect(id)
	if now.Spec.TaskTemplate.ContainerSpec.Image != "app:1" || now.Spec.Labels["tier"] != "one" || now.PreviousSpec.TaskTemplate.ContainerSpec.Image != "app:4" ||
		now.UpdateStatus == nil || now.UpdateStatus.State != swarm.UpdateStateRollbackStarted {
		t.Fatalf("%+v, %+v", now.Spec, now.UpdateStatus)
	}
	if got := b.view().Revision(id, 1).Auth; got != "first" {
		t.Fatalf("credentials %q", got)
	}
	rollback(fmt.Sprintf("version=%d&to=2", before.Version.Index)).want(t, 500, "update out of sequence")
	// A plain rollback returns; the numbers go on from the highest.
	b.post(id, "rollback=previous", now.Spec).want(t, 200, "")
	rollback("version=NOW&to=2", "X-Registry-Auth", "second").want(t, 200, "")
	if got := b.view().Revision(id, 2).Auth; got != "second" {
		t.Fatalf("credentials %q", got)
	}
	b.post(id, "", spec("web", withImage("app:5"))).want(t, 200, "")
	if got := b.revisions(id); got[0].Number != 5 || !got[0].Current || !got[3].Previous {
		t.Fatalf("%+v", got)
	}
}

// TestRollbackToRevision_IsCheckedAsAnUpdateIs: a revision that was right once
// may not be so any more.
func TestRollbackToRevision_IsCheckedAsAnUpdateIs(t *testing.T) {
	b := newBench(t)
	b.allow("true").want(t, 200, "")
	id := b.create(spec("web", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"skep.host.privileged": "true"} }))
	b.post(id, "", spec("web", withImage("app:2"))).want(t, 200, "")
	b.update(func(tx *store.Tx) error {
		old := *tx.Revision(id, 1)
		old.Number, old.ServiceLabels = 7, map[string]string{"skep.once": "1"}
		return tx.Put(&old)
	})
	b.allow("false").want(t, 200, "")
	rollback := func(to int) answer {
		return b.do("POST", fmt.Sprintf("/skep/v1/services/%s/rollback?version=%d&to=%d", id, b.inspect(id).Version.Index, to), nil)
	}
	rollback(1).want(t, 403, "this cluster doesn't allow them")
	rollback(7).want(t, 400, "label skep.once: skep knows no such label")
	b.allow("true").want(t, 200, "")
	rollback(1).want(t, 200, "")
}

func TestRevisionHistory_IsANumber(t *testing.T) {
	b := newBench(t)
	set := func(value string) answer {
		var found swarm.Swarm
		b.do("GET", "/swarm", nil).want(t, 200, "").into(t, &found)
		found.Spec.Labels["skep.revision-history"] = value
		return b.do("POST", fmt.Sprintf("/swarm/update?version=%d", found.Version.Index), found.Spec)
	}
	for _, bad := range []string{"", "ten", "-1", "1001", "1.5"} {
		set(bad).want(t, 400, "it takes a number from 0 to 1000")
	}
	set("3").want(t, 200, "")
	if got := cluster.RevisionHistory(b.view().Cluster().Spec); got != 3 {
		t.Fatalf("%d", got)
	}
}

// Who made a revision, and what they said of it, is kept with it.
func TestRevisions_HaveAuthorAndMessage(t *testing.T) {
	b := newBench(t)
	said := func(text string) []string { return []string{cluster.HeaderMessage, url.QueryEscape(text)} }
	id := b.create(spec("web"), said("the first")...)
	b.post(id, "", spec("web", withImage("app:2")), said("für Kunden: 100 %")...).want(t, 200, "")
	b.do("POST", "/skep/v1/services/web/restart", nil, said("it hung")...).want(t, 200, "")
	b.do("POST", "/skep/v1/services/web/restart", nil).want(t, 200, "")
	kept := b.revisions(id)
	for i, want := range []string{"", "it hung", "für Kunden: 100 %", "the first"} {
		if kept[i].Message != want || kept[i].By != "a user on n1" {
			t.Errorf("revision %d is by %q and says %q, want %q", kept[i].Number, kept[i].By, kept[i].Message, want)
		}
	}
	// Where nothing would keep it, it is refused.
	two := uint64(2)
	scaled := b.inspect(id).Spec
	scaled.Mode.Replicated = &swarm.ReplicatedService{Replicas: &two}
	b.post(id, "", scaled, said("more")...).want(t, 400, "no new revision of service web")
	b.post(id, "", scaled).want(t, 200, "")
	b.do("POST", fmt.Sprintf("/skep/v1/services/%s/rollback?version=%d&to=1", id, b.inspect(id).Version.Index), nil, said("back")...).want(t, 400, "no new revision")
	for _, bad := range []string{"two\nlines", "\x1b[2J", strings.Repeat("x", cluster.MaxMessage+1), "\xff"} {
		b.do("POST", "/skep/v1/services/web/restart", nil, said(bad)...).want(t, 400, "the message has")
	}
	b.do("POST", "/skep/v1/services/web/restart", nil, cluster.HeaderMessage, "%zz").want(t, 400, cluster.HeaderMessage)
	// A change of the labels alone goes into the revision that is there, which stays whose it is.
	labelled := b.inspect(id).Spec
	labelled.Labels = map[string]string{"tier": "one"}
	b.post(id, "", labelled).want(t, 200, "")
	if kept := b.revisions(id); kept[0].Labels["tier"] != "one" || kept[1].Message != "it hung" {
		t.Errorf("%+v", kept[:2])
	}
}
