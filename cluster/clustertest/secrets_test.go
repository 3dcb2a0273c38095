package clustertest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestCluster_WritesNothingInTheClear puts canaries wherever a user can write, and
// looks for them in every file of every node, also in the forms that encodings give.
func TestCluster_WritesNothingInTheClear(t *testing.T) {
	var dir string
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{SnapshotEntries: 10})
		dir = c.dir
		spec := Spec("canaryname", "canaryimage:1", 5)
		spec.Labels = map[string]string{"canarylabel": "canaryvalue"}
		spec.TaskTemplate.ContainerSpec.Env = []string{"CANARYENV=canarysecret"}
		spec.TaskTemplate.ContainerSpec.Labels = map[string]string{"canarycontainer": "canaryvalue"}
		id := c.Machines[0].Create(spec)
		c.Runs(10*time.Second, id, "canaryimage:1", 5)
		for i := range 30 {
			c.Machines[0].Create(Spec(fmt.Sprintf("canaryname-%d", i), "canaryimage:1", 0))
		}
		var n swarm.Node
		c.Machines[0].Do(http.MethodGet, "/nodes/n2", nil, &n)
		n.Spec.Labels = map[string]string{"canarylabel": "canaryvalue"}
		c.Machines[0].Do(http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec, nil)
		time.Sleep(5 * time.Second) // snapshots are taken
		c.Same()
		for _, m := range c.Machines[3:] {
			m.Stop()
		}
		find(t, dir, []string{"canaryname", "canaryimage", "canarylabel", "canaryvalue", "CANARYENV", "canarysecret", "canarycontainer"})
	})
}

// find fails the test for each file below dir that holds one of the words.
func find(t *testing.T, dir string, words []string) {
	t.Helper()
	files, snapshots := 0, 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if strings.Contains(path, "snapshots") && len(data) > 0 {
			snapshots++
		}
		for _, word := range words {
			for _, form := range []string{word, strings.ToUpper(word), base64.RawStdEncoding.EncodeToString([]byte(word))} {
				if bytes.Contains(data, []byte(form)) {
					t.Errorf("%s holds %q", path, form)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 15 || snapshots == 0 {
		t.Errorf("looked at %d files, %d of snapshots: the test misses something", files, snapshots)
	}
}
