package clustertest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster/node"
)

// TestEnter_NoSecondClusterAfterALostDisk: the order to make a cluster is left on the
// first machine's command line, and its disk is lost.
func TestEnter_NoSecondClusterAfterALostDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		first, others := c.Machines[0], c.Machines[1:]
		tokens := first.Tokens(others[0])
		clusterID := others[0].manager().Store().View().Cluster().ID
		file := filepath.Join(t.TempDir(), "token")
		first.Flags = func(config *node.Config) {
			config.Init, config.Join, config.TokenFile = true, []string{others[0].IP, others[1].IP}, file
			config.AdvertiseAddr = first.IP
		}
		first.Stop()
		if err := os.RemoveAll(first.path("")); err != nil {
			t.Fatal(err)
		}
		refused := func(why string) {
			t.Helper()
			for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(time.Second) {
				if first.manager() != nil {
					t.Fatal("it made a second cluster")
				}
			}
			if info := first.node.Info(); !strings.Contains(info.Error, why) {
				t.Errorf("it says %q; want that %s", info.Error, why)
			}
		}
		first.Restart()
		refused("there is a cluster already")
		// The same when the others don't answer: nobody knows then.
		first.Stop()
		c.Partition(first)
		first.Restart()
		refused("doesn't answer")
		c.Heal()
		// After a power cut one of them may be quicker than the managers.
		first.Stop()
		for _, m := range others {
			m.Crash()
		}
		first.Restart()
		time.Sleep(5 * time.Second)
		for _, m := range others {
			m.Restart()
		}
		refused("there is a cluster already")
		// With the token it joins the cluster that there is.
		if err := os.WriteFile(file, []byte(tokens.Manager+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Eventually(time.Minute, "it is a manager of the same cluster", func() error {
			running := first.manager()
			if running == nil || running.Store().View().Cluster() == nil {
				return errReset
			}
			if id := running.Store().View().Cluster().ID; id != clusterID {
				t.Fatalf("it is in cluster %s; the others are in %s", id, clusterID)
			}
			return nil
		})
	})
}

// TestEnter_ATokenMeansThatThereIsACluster, also when no managers are named.
func TestEnter_ATokenMeansThatThereIsACluster(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 0, Options{})
		other := c.add(2)
		other.Stop()
		file := filepath.Join(t.TempDir(), "manager")
		if err := os.WriteFile(file, []byte(other.Tokens(c.Machines[0]).Manager), 0o600); err != nil {
			t.Fatal(err)
		}
		other.Flags = func(config *node.Config) { config.Init, config.TokenFile, config.AdvertiseAddr = true, file, other.IP }
		other.Restart()
		time.Sleep(30 * time.Second)
		if info := other.node.Info(); other.manager() != nil || !strings.Contains(info.Error, "there is one already") {
			t.Errorf("it says %q, and is a manager: %v", info.Error, other.manager() != nil)
		}
	})
}

// TestEnter_TheFirstTime nobody has a cluster, and one is made.
func TestEnter_TheFirstTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 0, Options{})
		other := c.add(2)
		other.Stop()
		other.Flags = func(config *node.Config) {
			config.Init, config.Join, config.AdvertiseAddr = true, []string{other.IP, "127.0.1.200", "127.0.1.201:2377"}, other.IP
			config.TokenFile = filepath.Join(t.TempDir(), "manager")
		}
		other.Restart()
		c.Eventually(20*time.Second, "it has made a cluster", func() error {
			var of swarm.Swarm
			return other.Try("GET", "/swarm", nil, &of)
		})
	})
}
