package agenttest_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/cluster"
)

// using is a revision with a secret, and the secret.
func using() (*cluster.Revision, *cluster.Secret) {
	r := revision(nil)
	r.Spec.ContainerSpec.Secrets = []*swarm.SecretReference{{SecretID: "x1", SecretName: "key", File: &swarm.SecretReferenceFileTarget{Name: "key"}}}
	secret := &cluster.Secret{ID: "x1"}
	secret.Spec.Name, secret.Spec.Data = "key", []byte("canary")
	return r, secret
}

const waits = "waiting for a manager to send secret key"

func (b *bench) sees(taskID string) string {
	for _, f := range b.driver.Files(taskID) {
		return f.Target + "=" + string(f.Data)
	}
	return ""
}

func TestSecrets_ComeBeforeOrAfterTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		r, secret := using()
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{Full: true, To: 10, Revisions: []*cluster.Revision{r}, Tasks: []*cluster.Task{task("t1", 10, cluster.StateRunning)}}})
		m.expect("t1", cluster.StatePreparing, "preparing", waits)
		m.beat(20 * time.Second) // attempts are made, in vain
		m.expect("t1", cluster.StatePreparing, "preparing", waits)
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{From: 10, To: 10, Secrets: []*cluster.Secret{secret}}})
		m.expect("t1", cluster.StateRunning, "started", "") // at once, not at the next attempt
		m.diff(10, 11, nil, task("t2", 11, cluster.StateRunning))
		m.expect("t2", cluster.StateRunning, "started", "")
		if b.sees("t1") != "/run/secrets/key=canary" || b.sees("t2") != "/run/secrets/key=canary" {
			t.Errorf("the tasks see %q and %q", b.sees("t1"), b.sees("t2"))
		}

		// Dropped means forgotten: another task waits again.
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{From: 11, To: 12, Dropped: []string{"x1"}, Removed: []string{"t1", "t2"}}})
		m.diff(12, 13, nil, task("t3", 13, cluster.StateRunning))
		m.expect("t3", cluster.StatePreparing, "preparing", waits)
		// Gone means never.
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{From: 13, To: 14, Gone: []string{"x1"}}})
		m.expect("t3", cluster.StateRejected, "preparing", "secret key not found: it was removed")
		if b.sees("t1")+b.sees("t3") != "" {
			t.Error("tasks that are gone see the secret")
		}
		b.stop()
	})
}

func TestSecrets_AreNotInTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		r, secret := using()
		full := &cluster.Assignments{Full: true, To: 10, Revisions: []*cluster.Revision{r}, Secrets: []*cluster.Secret{secret}, Tasks: []*cluster.Task{task("t1", 10, cluster.StateRunning)}}
		m.send(&cluster.FromManager{Assignments: full})
		m.expect("t1", cluster.StateRunning, "started", "")
		b.driver.SetAway(true)
		m.diff(10, 11, nil, task("t2", 11, cluster.StateRunning))
		m.settle()
		if data := string(b.record.now()); strings.Contains(data, "canary") || !strings.Contains(data, "t2") {
			t.Error("the record has the secret, or lacks the task")
		}
		b.crash()
		b.driver.SetAway(false)

		// Without managers the container goes on; what isn't prepared waits for one.
		b.refused.Store(true)
		b.start()
		time.Sleep(time.Minute)
		if b.driver.Count(node) != 1 || b.sees("t1") == "" {
			t.Fatalf("%d containers run", b.driver.Count(node))
		}
		b.refused.Store(false)
		m = b.accept()
		synctest.Wait()
		m.expect("t1", cluster.StateRunning, "started", "")
		m.expect("t2", cluster.StatePreparing, "preparing", waits)
		full.To, full.Tasks = 12, append(full.Tasks, task("t2", 11, cluster.StateRunning))
		m.send(&cluster.FromManager{Assignments: full})
		m.expect("t2", cluster.StateRunning, "started", "")
		b.stop()
	})
}

// A complete set that has to wait for differences keeps its secrets in step.
func TestSecrets_OfAManagerThatCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		r, secret := using()
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{Full: true, To: 20, Revisions: []*cluster.Revision{r}, Tasks: []*cluster.Task{task("t1", 20, cluster.StateReady)}}})
		m.conn.Close()
		m = b.accept()
		other := &cluster.Secret{ID: "x9"}
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{Full: true, To: 15, Revisions: []*cluster.Revision{r}, Secrets: []*cluster.Secret{other}, Gone: []string{"x8"}}})
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
			From: 15, To: 21, Secrets: []*cluster.Secret{secret}, Dropped: []string{"x9", "x8"}, Tasks: []*cluster.Task{task("t1", 20, cluster.StateReady), task("t2", 21, cluster.StateRunning)},
		}})
		m.expect("t1", cluster.StateReady, "prepared", "")
		m.expect("t2", cluster.StateRunning, "started", "")
		b.stop()
	})
}

// templated makes an assignment whose secret "key" and config "site" have these
// bodies, both templates.
func templated(key, site string) agent.Assignment {
	r, secret := using()
	r.ServiceLabels = map[string]string{"tier": "front"}
	r.Spec.ContainerSpec.Env = []string{"WHERE={{.Node.Hostname}}", "A=b=c"}
	r.Spec.ContainerSpec.Configs = []*swarm.ConfigReference{{ConfigID: "x2", ConfigName: "site", File: &swarm.ConfigReferenceFileTarget{Name: "/etc/site"}}}
	config := &cluster.Config{ID: "x2"}
	secret.Spec.Data, config.Spec.Data = []byte(key), []byte(site)
	secret.Spec.Templating, config.Spec.Templating = &swarm.Driver{Name: "golang"}, &swarm.Driver{Name: "golang"}
	return agent.Assignment{
		Task: task("t1", 1, cluster.StateRunning), Revision: r, Hostname: "host1",
		Secrets: map[string]*cluster.Secret{"x1": secret}, Configs: map[string]*cluster.Config{"x2": config},
	}
}

func TestFiles_ExpandTemplates(t *testing.T) {
	for site, want := range map[string]string{
		`{{.Service.Name}}.{{.Task.Slot}} {{.Service.Labels.tier}} {{.Node.ID}} {{.Task.Name}}`: "web.1 front node1 web.1.t1",
		`{{env "WHERE"}} {{env "A"}} [{{env "NONE"}}]`:                                          "host1 b=c []",
		`pw={{secret "key"}}`:    "pw=K {{.Task.ID}}", // as it is, not expanded in turn
		`{{config "/etc/site"}}`: `{{config "/etc/site"}}`,
		`{{join "-" "a" "b"}}`:   "a-b",
		"no template":            "no template",
	} {
		files, err := templated("K {{.Task.ID}}", site).Files()
		if err != nil || len(files) != 2 || string(files[0].Data) != "K t1" || string(files[1].Data) != want {
			t.Errorf("%s: %v, %v, want %q", site, files, err, want)
		}
	}
	for _, bad := range []string{
		`canary {{.Nothing}}`, `canary {{`, `{{secret "canary"}}`, `{{config "canary"}}`, `{{.Service.Labels.canary}}`, `{{index "canary" 99}}`, `{{.Task.String}}canary`,
	} {
		_, err := templated("canary", bad).Files()
		if !errors.Is(err, cluster.ErrInvalid) || !strings.Contains(err.Error(), "config site") || strings.Contains(err.Error(), "canary") {
			t.Errorf("config %s: %v", bad, err)
		}
		_, err = templated(bad, "canary").Files()
		if !errors.Is(err, cluster.ErrInvalid) || !strings.Contains(err.Error(), "secret key") || strings.Contains(err.Error(), "canary") {
			t.Errorf("secret %s: %v", bad, err)
		}
	}
}
