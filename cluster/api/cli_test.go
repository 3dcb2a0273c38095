package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// cli runs the real docker command against a server.
type cli struct {
	*bench
	socket string
}

func newCLI(t *testing.T, b *bench) *cli {
	if _, err := exec.LookPath("docker"); err != nil {
		if os.Getenv("SKEP_REQUIRE_DOCKER") == "1" {
			t.Fatal("no docker command, and SKEP_REQUIRE_DOCKER=1")
		}
		t.Skip("no docker command")
	}
	path, _ := listen(t, b.handler, ReadHeaderTimeout, 64)
	return &cli{b, path}
}

// run runs docker and returns what it printed, and whether it succeeded.
func (c *cli) run(input string, args ...string) (string, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "docker", args...)
	command.Env = append(os.Environ(), "DOCKER_HOST=unix://"+c.socket, "DOCKER_CONFIG="+c.t.TempDir(), "DOCKER_CONTEXT=")
	command.Stdin = strings.NewReader(input)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	err := command.Run()
	if ctx.Err() != nil {
		c.t.Fatalf("docker %q doesn't end: %s", args, output.String())
	}
	return output.String(), err
}

// docker runs docker, which must succeed and print what pattern matches.
func (c *cli) docker(pattern string, args ...string) string {
	c.t.Helper()
	output, err := c.run("", args...)
	if err != nil || !regexp.MustCompile(pattern).MatchString(output) {
		c.t.Fatalf("docker %s: %v\n%s\nwant %s", strings.Join(args, " "), err, output, pattern)
	}
	return output
}

// refused runs docker, which must fail and print what pattern matches.
func (c *cli) refused(pattern string, args ...string) {
	c.t.Helper()
	output, err := c.run("", args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !regexp.MustCompile(pattern).MatchString(output) {
		c.t.Fatalf("docker %s: %v\n%s\nwant a failure with %s", strings.Join(args, " "), err, output, pattern)
	}
}

// schedule gives every service the tasks it wants, at once, as long as the test
// runs: what the scheduler and the agents do.
func (b *bench) schedule() {
	stop, done := make(chan struct{}), make(chan struct{})
	b.t.Cleanup(func() { close(stop); <-done })
	changes := b.manager.store.Subscribe()
	go func() {
		defer close(done)
		defer changes.Close()
		next := 100
		for {
			select {
			case <-stop:
				return
			case <-changes.Ready():
			}
			changes.Take()
			_ = b.manager.store.Update(context.Background(), func(tx *store.Tx) error {
				var put []any
				for service := range tx.Services() {
					total, _ := service.Completions()
					if service.Global() {
						total = tx.NodeCount()
					}
					for i := range service.Replicas() + total {
						slot, node, wanted := uint32(i+1), nodeID(1+(i+1)%3), cluster.StateRunning
						if service.Global() {
							slot = 0
						}
						if service.Job() {
							wanted = cluster.StateComplete
						}
						filled := false
						for task := range tx.TasksOfService(service.ID) {
							if task.Slot != slot || slot == 0 && task.NodeID != node || !task.Live() {
								continue
							}
							if filled = task.Revision == service.Revision; !filled {
								old := *task
								old.Desired, old.Status.State, old.Status.Message = cluster.StateShutdown, cluster.StateShutdown, "shutdown"
								put = append(put, &old)
							}
						}
						if filled {
							continue
						}
						next++
						put = append(put, &cluster.Task{
							ID: taskID(next), ServiceID: service.ID, Revision: service.Revision, Slot: slot, NodeID: node,
							Desired: wanted,
							Status: cluster.TaskStatus{
								State: wanted, Since: cluster.At(tx.Now()), ContainerID: "c", Message: "started",
								Ports: cluster.FormatPorts(cluster.HostPorts(service.Spec.EndpointSpec)),
							},
						})
					}
					if r := tx.Rollout(service.ID); r != nil && r.State == swarm.UpdateStateRollbackStarted {
						finished := *r
						finished.State, finished.CompletedAt, finished.Message = swarm.UpdateStateRollbackCompleted, tx.Now(), "rollback completed"
						put = append(put, &finished)
					}
				}
				for _, object := range put {
					if task, ok := object.(*cluster.Task); ok {
						give(tx, task)
					}
					if err := tx.Put(object); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}()
}

func TestCLIServices(t *testing.T) {
	b := newBench(t)
	b.manager.set(func(m *fakeManager) { m.logs = sayHello })
	b.schedule()
	b.record()
	c := newCLI(t, b)
	began := time.Now()
	c.docker(`^[0-9a-z]{25}\n$`, "service", "create", "-d", "-q", "--no-resolve-image", "--name", "detached", "timecheck:1.0")
	c.docker(`(?s)overall progress: 2 out of 2 tasks.*verify: Service ([0-9a-z]{25} )?converged`, "service", "create", "--name", "timecheck", "--replicas", "2",
		"--update-monitor", "100ms", "--rollback-monitor", "100ms", "--no-resolve-image", "timecheck:1.0")
	c.docker(`(?s)ID +NAME +MODE +REPLICAS +IMAGE +PORTS\n.*timecheck +replicated +2/2 +timecheck:1.0`, "service", "ls")
	c.docker(`timecheck`, "service", "ls", "-q", "--filter", "name=time", "--format", "{{.Name}}")
	c.docker(`(?s)NODE +DESIRED STATE +CURRENT STATE.*timecheck\.1 +timecheck:1.0 +n2 +Running +Running (less than a|\d+) second`, "service", "ps", "timecheck")
	c.docker(`(?s)"Image": "timecheck:1.0",.*"Runtime": "container"`, "service", "inspect", "timecheck")
	c.docker(`(?s)Service Mode:\s+Replicated\s+Replicas:\s+2.*On failure:\s+pause.*Monitoring Period: 100ms`, "service", "inspect", "--pretty", "timecheck")
	c.docker(`(?s)timecheck\.[12]\.task00000000@n[123] +\| hello\n`, "service", "logs", "timecheck")
	c.docker(`(?s)timecheck\.[12]\.task00000000@n[123] +\| oops\n`, "service", "logs", "--since", "10s", "--tail", "5", "-t", "timecheck")
	c.docker(`hello`, "service", "logs", "--raw", taskOf(b, "timecheck"))

	c.docker(`(?s)timecheck\noverall progress: .*2 out of 2 tasks.*converged`, "service", "update", "--image", "timecheck:2.0", "--no-resolve-image", "timecheck")
	c.docker(`(?s)timecheck\.1 .*timecheck:2.0.*Running.*\\_ timecheck\.1 .*timecheck:1.0.*Shutdown`, "service", "ps", "timecheck")
	// The command shows the reason of a rollback when it first looks, or at its end when
	// the rollback is over by then; so either line may come first.
	c.docker(`(?s)timecheck\n(.*rollback: manually requested rollback\n.*converged|.*converged.*rollback: rollback completed\n)`, "service", "update", "--rollback", "timecheck")
	c.docker(`timecheck:1.0`, "service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Image}} {{.UpdateStatus.State}}", "timecheck")
	c.docker(`(?s)converged`, "service", "rollback", "timecheck")
	c.docker(`timecheck:2.0 rollback_completed`, "service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Image}} {{.UpdateStatus.State}}", "timecheck")
	c.docker(`(?s)timecheck scaled to 3.*converged`, "service", "scale", "timecheck=3")
	c.docker(`timecheck`, "service", "update", "-d", "--force", "--limit-memory", "10M", "--constraint-add", "node.role==worker", "--env-add", "A=B",
		"--label-add", "l=v", "--replicas-max-per-node", "2", "--mount-add", "type=volume,source=v,target=/v", "timecheck")
	if got := b.inspect("timecheck").Spec; got.TaskTemplate.ContainerSpec.Env[0] != "A=B" || got.TaskTemplate.ForceUpdate != 1 || got.TaskTemplate.Placement.MaxReplicas != 2 {
		t.Errorf("%+v", got)
	}
	c.docker(`n1`, "node", "ps", "n1", "--format", "{{.Node}}")

	c.docker(`(?s)overall progress: 3 out of 3 tasks.*converged`, "service", "create", "--name", "agent", "--mode", "global", "--update-monitor", "100ms", "--no-resolve-image", "timecheck:1.0")
	c.docker(`(?s)agent\n.*overall progress: 3 out of 3 tasks.*converged`, "service", "update", "--force", "agent")
	c.docker(`(?s)active tasks: 0 out of 0 tasks.*job complete`, "service", "create", "--name", "sums", "--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "1", "--no-resolve-image", "timecheck:1.0")
	c.docker(`job complete`, "service", "create", "--name", "sweep", "--mode", "global-job", "--no-resolve-image", "timecheck:1.0")
	c.docker(`(?s)sums\n.*job complete`, "service", "update", "--force", "sums")
	c.docker(`(?s)sums scaled to 5\n.*job complete`, "service", "scale", "sums=5")
	c.docker(`agent global 3/3\n`, "service", "ls", "--filter", "mode=global", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}")
	c.docker(`sums replicated job 0/1 \(5/5 completed\)\n`, "service", "ls", "--filter", "mode=replicated-job", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}")
	c.docker(`sweep global job 0/0 \(3/3 completed\)\n`, "service", "ls", "--filter", "mode=global-job", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}")
	c.docker(`(?s)sums\.1 .*sums\.4 .*sums\.node`, "service", "ps", "sums", "--format", "{{.Name}} {{.CurrentState}}")
	c.docker(`agent\.node`, "service", "ps", "agent", "--format", "{{.Name}}")
	c.docker(`^3 1 5\n$`, "service", "inspect", "-f", "{{.JobStatus.JobIteration.Index}} {{.Spec.Mode.ReplicatedJob.MaxConcurrent}} {{.Spec.Mode.ReplicatedJob.TotalCompletions}}", "sums")
	c.refused(`(?i)update-\S+ is not supported|update config`, "service", "update", "--update-parallelism", "2", "sums")

	c.refused(`service needs ingress network, but no ingress network is present`, "service", "create", "-d", "-p", "80:80", "--no-resolve-image", "timecheck:1.0")
	c.docker(`.`, "service", "create", "-d", "--name", "onhost", "--network", "host", "--publish", "mode=host,target=8080,published=8080", "--no-resolve-image", "timecheck:1.0")
	c.docker(`Networks: host`, "service", "inspect", "--pretty", "onhost")
	c.docker(`^skepnethost00000000000000\n$`, "service", "inspect", "-f", "{{range .Spec.TaskTemplate.Networks}}{{.Target}}{{end}}", "onhost")
	c.refused(`port 8080 can't be published: the service's network is none`, "service", "update", "-d", "--network-rm", "host", "--network-add", "none", "onhost")
	c.docker(`onhost`, "service", "update", "-d", "--publish-rm", "mode=host,target=8080,published=8080", "--network-rm", "host", "--network-add", "none", "onhost")
	c.docker(`Networks: none`, "service", "inspect", "--pretty", "onhost")
	c.docker(`onhost`, "service", "update", "-d", "--network-rm", "none", "onhost")
	c.docker(`^\n$`, "service", "inspect", "-f", "{{range .Spec.TaskTemplate.Networks}}{{.Target}}{{end}}", "onhost")
	c.docker(`onhost`, "service", "rm", "onhost")
	c.refused(`network front not found|No such network: front`, "service", "create", "-d", "--network", "front", "--no-resolve-image", "timecheck:1.0")
	c.refused(`name conflicts with an existing object: service timecheck already exists`, "service", "create", "-d", "--name", "timecheck", "--no-resolve-image", "timecheck:1.0")
	c.refused(`(?i)no such service: none|service none not found`, "service", "inspect", "none")

	// A registry is asked for, there is none, the service is made all the same.
	c.docker(`(?s)image timecheck:1.0 could not be accessed on a registry.*`, "service", "create", "-d", "--name", "unpinned", "timecheck:1.0")
	c.docker(`timecheck\nunpinned`, "service", "rm", "timecheck", "unpinned")
	c.refused(`(service timecheck not found|No such service: timecheck)`, "service", "rm", "timecheck")

	events := c.docker(`service create`, "events", "--since", fmt.Sprint(began.Unix()-1), "--until", fmt.Sprint(time.Now().Unix()), "--filter", "type=service")
	if !strings.Contains(events, "name=timecheck") {
		t.Errorf("%s", events)
	}
}

func TestCLIPlacement(t *testing.T) {
	b := newBench(t)
	b.schedule()
	c := newCLI(t, b)
	c.docker(`converged`, "service", "create", "--name", "web", "--no-resolve-image", "--update-monitor", "100ms",
		"--placement-pref", "spread=node.labels.zone", "--placement-pref", "spread=node.labels.rack", "--generic-resource", "gpu=2",
		"-p", "mode=host,target=80,published=8080", "-p", "mode=host,target=53,published=53,protocol=udp", "timecheck:1.0")
	c.docker(`\*:53->53/udp,\*:8080->80/tcp`, "service", "ps", "web", "--format", "{{.Ports}}")
	c.docker(`(?s)PublishedPort = 8080.*TargetPort = 80.*PublishMode = host`, "service", "inspect", "--pretty", "web")
	c.docker(`web`, "service", "update", "-d", "--placement-pref-rm", "spread=node.labels.rack", "--placement-pref-add", "spread=node.labels.floor",
		"--generic-resource-add", "ssd=1", "--generic-resource-rm", "gpu", "--publish-rm", "mode=host,target=53,published=53,protocol=udp", "web")
	task := b.inspect("web").Spec.TaskTemplate
	var spread []string
	for _, p := range task.Placement.Preferences {
		spread = append(spread, p.Spread.SpreadDescriptor)
	}
	if got := strings.Join(spread, " "); got != "node.labels.zone node.labels.floor" {
		t.Errorf("it is spread over %s", got)
	}
	if got := task.Resources.Reservations.GenericResources; len(got) != 1 || *got[0].DiscreteResourceSpec != (swarm.DiscreteGenericResource{Kind: "ssd", Value: 1}) {
		t.Errorf("it asks for %+v", got)
	}
	if got := b.inspect("web").Spec.EndpointSpec.Ports; len(got) != 1 || got[0].PublishedPort != 8080 {
		t.Errorf("it publishes %+v", got)
	}
	c.refused(`spread=node.colour means nothing, there are node.id`, "service", "create", "-d", "--no-resolve-image", "--placement-pref", "spread=node.colour", "timecheck:1.0")
	c.docker(`n2`, "node", "update", "--label-add", "skep.reserve.cpus=1", "n2")
	c.refused(`label skep.reserve.memory: "lots" won't do, it takes a size such as 512m`, "node", "update", "--label-add", "skep.reserve.memory=lots", "n2")
}

func TestCLISecretsAndConfigs(t *testing.T) {
	b := newBench(t)
	c := newCLI(t, b)
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.docker(`^[a-z0-9]{25}\n$`, "secret", "create", "--label", "a=b", "key", file)
	c.docker(`^[a-z0-9]{25}\n$`, "config", "create", "--template-driver", "golang", "site", file)
	c.refused(`secret key already exists`, "secret", "create", "key", file)
	c.refused(`config SITE already exists`, "config", "create", "SITE", file)
	c.refused(`SecretSpec.Driver: not supported by skep yet`, "secret", "create", "--driver", "vault", "other")
	c.docker(`ID +NAME +DRIVER +CREATED +UPDATED\n\S+ +key +.* ago`, "secret", "ls")
	c.docker(`^key\n$`, "secret", "ls", "--filter", "label=a=b", "--filter", "name=k", "--format", "{{.Name}}")
	c.docker(`ID +NAME +CREATED +UPDATED\n\S+ +site +.* ago`, "config", "ls")
	if out := c.docker(`"Name": "key"`, "secret", "inspect", "key"); strings.Contains(out, "canary") || strings.Contains(out, "Y2FuYXJ5") {
		t.Errorf("secret inspect shows the secret: %s", out)
	}
	c.docker(`(?s)Name:\s+site.*Data:\ncanary`, "config", "inspect", "--pretty", "site")

	c.docker(`.`, "service", "create", "-d", "--name", "web", "--no-resolve-image", "--secret", "source=key,target=/k,uid=3,mode=0400", "--config", "site", "timecheck:1.0")
	spec := b.inspect("web").Spec.TaskTemplate.ContainerSpec
	if s := spec.Secrets[0]; s.SecretName != "key" || s.File.Name != "/k" || s.File.UID != "3" || s.File.Mode != 0o400 {
		t.Errorf("secret reference %+v, %+v", s, s.File)
	}
	c.refused(`secret not found: none`, "service", "create", "-d", "--no-resolve-image", "--secret", "none", "timecheck:1.0")
	c.refused(`secret 'key' is in use by the following service: web`, "secret", "rm", "key")
	c.refused(`config 'site' is in use by the following service: web`, "config", "rm", "site")
	c.docker(`.`, "secret", "create", "key2", file)
	c.docker(`.`, "service", "update", "-d", "--no-resolve-image", "--secret-rm", "key", "--secret-add", "source=key2,target=/k", "--config-rm", "site", "web")
	c.docker(`^key\n$`, "secret", "rm", "key")
	c.docker(`^site\n$`, "config", "rm", "site")
	c.refused(`service web can't go back to its previous spec: secret not found: key`, "service", "rollback", "web")
	c.docker(`^web\n$`, "service", "rm", "web")
	c.docker(`^key2\n$`, "secret", "rm", "key2")
	c.refused(`(?i)no such secret: key2|secret key2 not found`, "secret", "inspect", "key2")
}

// taskOf gives the ID of a task of a service.
func taskOf(b *bench, name string) string {
	for task := range b.view().TasksOfService(b.view().ServiceNamed(name).ID) {
		return task.ID
	}
	return ""
}

func TestCLICluster(t *testing.T) {
	b := newBench(t)
	c := newCLI(t, b)
	c.docker(`(?s)ID +HOSTNAME +STATUS +AVAILABILITY +MANAGER STATUS +ENGINE VERSION\n\S+ \* +n1 +Ready +Active +Leader +20.10.24.*n2 +Ready +Active`, "node", "ls")
	c.docker(`(?s)ID:\s+node.*Hostname:\s+n1.*Manager Status:.*Raft Status:\s+Reachable.*Leader:\s+Yes`, "node", "inspect", "--pretty", "self")
	c.docker(`n2`, "node", "update", "--availability", "drain", "--label-add", "zone=a", "n2")
	c.docker(`drain map\[zone:a\]`, "node", "inspect", "-f", "{{.Spec.Availability}} {{.Spec.Labels}}", "n2")
	c.docker(`Node n3 promoted to a manager in the swarm`, "node", "promote", "n3")
	c.docker(`Manager n3 demoted in the swarm`, "node", "demote", "n3")
	c.refused(`attempting to demote the last manager of the swarm`, "node", "demote", "n1")
	c.refused(`is not down and can't be removed`, "node", "rm", "n2")
	c.docker(`n2`, "node", "rm", "--force", "n2")
	c.docker(`docker swarm join --token SWMTKN-1-a{50}-w{25} 127.0.1.1:2377`, "swarm", "join-token", "worker")
	c.docker(`^SWMTKN-1-a{50}-m{25}\n$`, "swarm", "join-token", "-q", "manager")
	rotated := c.docker(`^SWMTKN-1-a{50}-[0-9a-z]{25}\n$`, "swarm", "join-token", "-q", "--rotate", "worker")
	if strings.Contains(rotated, "wwwww") {
		t.Error("the token wasn't rotated")
	}
	c.docker(`Swarm updated`, "swarm", "update", "--task-history-limit", "9", "--cert-expiry", "48h")
	c.docker(`Swarm updated`, "swarm", "update", "--snapshot-interval", "77", "--max-snapshots", "3", "--dispatcher-heartbeat", "300ms")
	c.docker(`(?s)Snapshot Interval: 77\n.*Number of Old Snapshots to Retain: 3\n.*Heartbeat Tick: 1\n.*Election Tick: 10\n.*Heartbeat Period: (Less than a second|300)`, "info")
	c.refused(`heartbeat period 20s: agents and managers of skep speak at least every 1s: give 100ms to 1s, or 5s, which is the default`, "swarm", "update", "--dispatcher-heartbeat", "20s")
	c.docker(`Swarm updated`, "swarm", "update", "--dispatcher-heartbeat", "5s")
	c.docker(`(?s)Swarm: active\n +NodeID: node0*1\n +Is Manager: true\n +ClusterID: clusterid\n +Managers: 1\n +Nodes: 2.*Task History Retention Limit: 9.*Expiry Duration: 2 days`, "info")
	c.docker(`(?s)Server: skep\n Engine:\n +Version: +0.1.0-test\n +API version: +1.51 \(minimum version 1.24\).*skep:`, "version")
	c.refused(`no unlock key is set`, "swarm", "unlock-key")
	c.docker(`Node left the swarm.`, "swarm", "leave", "--force")
	c.docker(`This node joined a swarm as a manager`, "swarm", "join", "--token", cluster.JoinToken{Digest: testDigest, Secret: strings.Repeat("w", 25)}.String(), "127.0.1.9:2377")
	c.docker(`n3`, "inspect", "--type", "node", "-f", "{{.Description.Hostname}}", "n3")
}

func TestCLIAutolock(t *testing.T) {
	b := newBench(t)
	c := newCLI(t, b)
	c.refused(`no unlock key is set`, "swarm", "unlock-key")
	c.refused(`cannot rotate because autolock is not turned on`, "swarm", "unlock-key", "--rotate")
	c.refused(`Error: swarm is not locked`, "swarm", "unlock")
	c.docker(`(?s)Swarm updated.\nTo unlock a swarm manager after it restarts, run the .docker swarm unlock.\ncommand and provide the following key:\n\n +SWMKEY-1-\S{48}\n`, "swarm", "update", "--autolock")
	first := strings.TrimSpace(c.docker(`^SWMKEY-1-\S{48}\n$`, "swarm", "unlock-key", "-q"))
	c.docker(`Autolock Managers: true`, "info")
	second := strings.TrimSpace(c.docker(`^SWMKEY-1-\S{48}\n$`, "swarm", "unlock-key", "-q", "--rotate"))
	if second == first {
		t.Error("the key wasn't rotated")
	}
	key, err := cluster.ParseUnlockKey(second)
	if err != nil {
		t.Fatal(err)
	}

	running := b.node.manager
	b.node.mu.Lock()
	b.node.manager, b.node.info, b.node.unlock = nil, swarm.Info{NodeID: nodeID(1), LocalNodeState: swarm.LocalNodeStateLocked}, key
	b.node.mu.Unlock()
	c.docker(`Swarm: locked`, "info")
	c.refused(`Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.`, "node", "ls")
	unlock := func(key, want string, ok bool) {
		t.Helper()
		if output, err := c.run(key+"\n", "swarm", "unlock"); (err == nil) != ok || !strings.Contains(output, want) {
			t.Errorf("%v: %s", err, output)
		}
	}
	unlock("SWMKEY-1-abc", "invalid unlock key: want SWMKEY-1-", false)
	unlock(first, "swarm could not be unlocked: invalid key provided", false)
	unlock(second, "", true)
	b.node.mu.Lock()
	b.node.manager = running
	b.node.mu.Unlock()
	c.docker(`Swarm updated`, "swarm", "update", "--autolock=false")
	c.refused(`no unlock key is set`, "swarm", "unlock-key")

	// The node that the bench makes up isn't in its database.
	c.refused(`Swarm initialized: current node \(node1\) is now a manager.`, "swarm", "init", "--autolock", "--advertise-addr", "127.0.1.1")
	if !b.node.init.AutoLockManagers {
		t.Error("init doesn't pass --autolock on")
	}
}

func TestCLIRotateRoot(t *testing.T) {
	b := newBench(t)
	c := newCLI(t, b)
	c.docker(`no certificate`, "swarm", "ca")
	c.docker(`^$`, "swarm", "ca", "--rotate", "--detach")
	record := b.view().Cluster()
	if record.Rotation == nil || record.Spec.CAConfig.ForceRotate != 1 {
		t.Fatalf("nothing was begun: %+v", record.Spec.CAConfig)
	}
	c.refused(`a rotation is under way`, "swarm", "ca", "--rotate", "--detach")
	finish := func(tx *store.Tx) error {
		next := *tx.Cluster()
		next.RootCert, next.RootKey, next.Rotation = next.Rotation.Cert, next.Rotation.Key, nil
		for _, id := range []string{nodeID(1), nodeID(2), nodeID(3)} {
			node := *tx.Node(id)
			node.Description.TLSInfo = renderTrust(next.RootCert)
			if err := tx.Put(&node); err != nil {
				return err
			}
		}
		return tx.Put(&next)
	}
	b.update(finish)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b.view().Cluster().Rotation == nil {
			time.Sleep(10 * time.Millisecond)
		}
		b.update(finish)
	}()
	cert, key := t.TempDir()+"/cert", t.TempDir()+"/key"
	if err := errors.Join(os.WriteFile(cert, []byte(ownCert), 0o600), os.WriteFile(key, []byte(ownKey), 0o600)); err != nil {
		t.Fatal(err)
	}
	// Without a terminal the command doesn't show how far it is, but it ends only when all
	// three nodes have both.
	c.docker(`(?s)rotated TLS certificates:.*rotated CA certificates:.*desired root digest: sha256:.*-----BEGIN CERTIFICATE-----`, "swarm", "ca", "--rotate", "--ca-cert", cert, "--ca-key", key)
	<-done
	for _, path := range []string{"/swarm", "/info"} {
		if got := b.do("GET", path, nil).body; strings.Contains(got, "PRIVATE") || strings.Contains(got, "canary") {
			t.Errorf("%s shows a key", path)
		}
	}
	if spec := b.view().Cluster().Spec.CAConfig; spec.SigningCACert != "" || spec.SigningCAKey != "" {
		t.Error("the key is kept in the spec")
	}
}

// ownCert and ownKey are a root CA that nobody uses, for the command checks their form.
const (
	ownCert = `-----BEGIN CERTIFICATE-----
MIIBdDCCARmgAwIBAgIUReGM3T3wlBiKUp1E6SyoBiY727UwCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDb3duMCAXDTI2MTEyNDIxMzgzOFoYDzIxMjYxMDMxMjEzODM4
WjAOMQwwCgYDVQQDDANvd24wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASm10MH
ZN4qYQQw4koz2ClElUh0GbqaIRR3/YEHvVYwud3VP80NMXWkEnigHUs120bF5Qj/
+5/wASZp/9nrocg4o1MwUTAdBgNVHQ4EFgQU5jRUDqAjzKuotOKtxzro2m3m9zsw
HwYDVR0jBBgwFoAU5jRUDqAjzKuotOKtxzro2m3m9zswDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNJADBGAiEAwqgce5Opa0CtA5UaavSn2q8cx8shF3ri11tY
AZhsK10CIQDx21uX+pRQEkf8zE6GQZBf3Kaf+CfyhpBRb40KUbCwOw==
-----END CERTIFICATE-----
`
	ownKey = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgaQRLtF/AjeF2co3y
DtbfuFg482u0ifuglgnd4FJa3KKhRANCAASm10MHZN4qYQQw4koz2ClElUh0Gbqa
IRR3/YEHvVYwud3VP80NMXWkEnigHUs120bF5Qj/+5/wASZp/9nrocg4
-----END PRIVATE KEY-----
`
)
