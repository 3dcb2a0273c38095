package clustertest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
)

const canary = "canary-8f1e4c"

// Secret makes a secret through the machine's API and gives a reference to it.
func (m *Machine) Secret(name, data string) *swarm.SecretReference {
	m.cluster.t.Helper()
	var made swarm.SecretCreateResponse
	m.Do(http.MethodPost, "/secrets/create", swarm.SecretSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte(data)}, &made)
	return &swarm.SecretReference{SecretID: made.ID, SecretName: name, File: &swarm.SecretReferenceFileTarget{Name: name, UID: "0", GID: "0", Mode: 0o400}}
}

// Config makes a config and gives a reference to it.
func (m *Machine) Config(name, data string, templating *swarm.Driver) *swarm.ConfigReference {
	m.cluster.t.Helper()
	var made swarm.ConfigCreateResponse
	m.Do(http.MethodPost, "/configs/create", swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte(data), Templating: templating}, &made)
	return &swarm.ConfigReference{ConfigID: made.ID, ConfigName: name, File: &swarm.ConfigReferenceFileTarget{Name: "/" + name, UID: "0", GID: "0", Mode: 0o444}}
}

// sees gives what the service's running tasks see of secrets and configs, by the
// path of the file, checking that all see the same.
func (c *Cluster) sees(id string) (map[string]string, error) {
	tasks, err := c.Manager().Tasks(id, "running")
	if err != nil {
		return nil, err
	}
	var seen map[string]string
	for _, task := range tasks {
		var files []agent.File
		for _, m := range c.Machines {
			files = append(files, m.Driver.Files(task.ID)...)
		}
		now := map[string]string{}
		for _, f := range files {
			now[f.Target] = string(f.Data)
		}
		if seen != nil && fmt.Sprint(seen) != fmt.Sprint(now) {
			return nil, fmt.Errorf("tasks see %v and %v", seen, now)
		}
		seen = now
	}
	return seen, nil
}

// logged collects all that is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// TestCluster_ASecretIsOnlyInItsFile follows a secret through a cluster: the tasks
// see it, whichever manager their agent sits at, through updates and restarts; and
// it is in no answer, no log and no file of any node.
func TestCluster_ASecretIsOnlyInItsFile(t *testing.T) {
	var dir string
	bubble(t, func(t *testing.T) {
		log := &logged{}
		c := Start(t, 3, 2, Options{SnapshotEntries: 10, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		dir = c.dir
		key := c.Machines[1].Secret("key", canary)
		site := c.Machines[2].Config("site", `<{{secret "key"}} of {{.Service.Name}}>`, &swarm.Driver{Name: "golang"})
		spec := Spec("web", "web:1", 5)
		spec.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{key}
		spec.TaskTemplate.ContainerSpec.Configs = []*swarm.ConfigReference{site}
		id := c.Machines[0].Create(spec)
		c.Runs(10*time.Second, id, "web:1", 5)
		want := map[string]string{"/run/secrets/key": canary, "/site": "<" + canary + " of web>"}
		check := func(when string, want map[string]string) {
			t.Helper()
			if seen, err := c.sees(id); err != nil || fmt.Sprint(seen) != fmt.Sprint(want) {
				t.Errorf("%s, tasks see %v (%v), want %v", when, seen, err, want)
			}
		}
		check("at first", want)

		// What is wrong with a request isn't quoted either.
		for _, bad := range []any{
			map[string]any{"Name": canary + "!", "Data": []byte(canary)}, map[string]any{"Name": "a", canary: 1}, map[string]any{"Name": "a", "Data": canary},
		} {
			if err := c.Machines[1].Try(http.MethodPost, "/secrets/create", bad, nil); err == nil || bytes.Contains([]byte(err.Error()), []byte("8f1e4c")) {
				t.Errorf("a bad secret: %v", err)
			}
		}
		if err := c.Machines[0].Try(http.MethodDelete, "/secrets/key", nil, nil); err == nil {
			t.Error("a secret that is in use was removed")
		}

		// A worker starts anew, a task dies, the leader goes: replacements see it too.
		c.Machines[4].Crash()
		c.Machines[4].Restart()
		tasks, err := c.Manager().Tasks(id, "running")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range c.Machines {
			for _, task := range tasks[:2] {
				m.Driver.Kill(task.ID, 1)
			}
		}
		time.Sleep(5 * time.Second)
		c.Runs(20*time.Second, id, "web:1", 5)
		check("after failures", want)

		// Another secret under the same name of file: an update, as users rotate secrets.
		next := c.Machines[1].Secret("key2", canary+"-2")
		next.File.Name = "key"
		c.Manager().Update(id, func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{next}
			s.TaskTemplate.ContainerSpec.Image = "web:2"
			s.UpdateConfig.Parallelism = 0
		})
		c.Runs(30*time.Second, id, "web:2", 5)
		check("after an update", map[string]string{"/run/secrets/key": canary + "-2", "/site": "<" + canary + "-2 of web>"})
		c.Manager().Do(http.MethodDelete, "/secrets/key", nil, nil)

		for _, path := range []string{
			"/secrets", "/secrets/key2", "/configs", "/services", "/services/" + id, "/services/" + id + "?insertDefaults=1", "/tasks", "/nodes",
			"/swarm", "/info", "/version", "/skep/v1/status", "/events?since=1&until=" + fmt.Sprint(time.Now().Unix()), "/services/" + id + "/logs?stdout=1&stderr=1",
		} {
			if body := c.Machines[1].Get(path); shows(body) {
				t.Errorf("%s shows the secret", path)
			}
		}
		if body := c.Machines[1].Get("/tasks/" + tasks[0].ID); shows(body) {
			t.Error("a task shows the secret")
		}
		c.Same()
		time.Sleep(5 * time.Second) // snapshots and records are written
		for _, m := range c.Machines[3:] {
			m.Stop()
		}
		find(t, dir, []string{canary, "8f1e4c"})
		log.mu.Lock()
		defer log.mu.Unlock()
		if log.text.Len() < 1000 || shows(log.text.Bytes()) {
			t.Errorf("the logs, %d bytes, have the secret: %v", log.text.Len(), shows(log.text.Bytes()))
		}
	})
}

// shows tells whether text has the canary, in the clear, in base64 or as Go
// prints bytes.
func shows(text []byte) bool {
	printed := fmt.Sprint([]byte(canary))
	for _, form := range []string{"8f1e4c", base64.StdEncoding.EncodeToString([]byte(canary))[:12], printed[1:20]} {
		if bytes.Contains(text, []byte(form)) {
			return true
		}
	}
	return false
}

// A secret may go as soon as the last service that refers to it has, though its
// tasks still run: `docker stack rm` counts on it.
func TestCluster_RemovingAServiceFreesItsSecretAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		m := c.Machines[0]
		key := m.Secret("key", canary)
		spec := Spec("web", "web:1", 3)
		spec.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{key}
		id := m.Create(spec)
		c.Runs(10*time.Second, id, "web:1", 3)
		tasks, err := m.Tasks(id)
		if err != nil {
			t.Fatal(err)
		}
		m.Do(http.MethodDelete, "/services/"+id, nil, nil)
		m.Do(http.MethodDelete, "/secrets/key", nil, nil)
		time.Sleep(5 * time.Second)
		for _, task := range tasks {
			for _, m := range c.Machines {
				if files := m.Driver.Files(task.ID); len(files) > 0 {
					t.Errorf("task %s still has its files", task.ID)
				}
			}
		}
	})
}

// A node that leaves keeps no secrets, also when its engine doesn't answer, so that
// the containers that see them can't be removed.
func TestCluster_ANodeThatLeavesKeepsNoSecrets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 2, Options{})
		m := c.Machines[0]
		spec := Spec("web", "web:1", 6)
		spec.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{m.Secret("key", canary)}
		id := m.Create(spec)
		c.Runs(10*time.Second, id, "web:1", 6)
		tasks, err := m.Tasks(id)
		if err != nil {
			t.Fatal(err)
		}
		c.Machines[2].Driver.SetAway(true)
		for _, leaving := range c.Machines[1:] {
			had := 0
			for _, task := range tasks {
				had += len(leaving.Driver.Files(task.ID))
			}
			leaving.Do(http.MethodPost, "/swarm/leave", nil, nil)
			has := 0
			for _, task := range tasks {
				has += len(leaving.Driver.Files(task.ID))
			}
			if had == 0 || has > 0 {
				t.Errorf("%s had %d files, and has %d after it left", leaving.Name, had, has)
			}
		}
	})
}
