package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
)

// failoverLimit is the most that a demo lets pass; `lab bench` measures properly.
const failoverLimit = 5 * time.Second

// acts are what a story cannot say as a command.
var acts = map[string]func(context.Context, *player) error{
	"wait until all nodes are ready":                 waitUntilReady,
	"kill the leader":                                killLeader,
	"kill a worker":                                  killWorker,
	"start the killed node again":                    startKilled,
	"look for the marks in every file of every node": findNoMarks,
	"wait until no container is left":                waitForNoContainer,
	"stop all nodes in order":                        stopAll,
}

// waitUntilReady also remembers whose containers are ours.
func waitUntilReady(ctx context.Context, p *player) error {
	return p.cluster.settled(ctx, 3, len(p.cluster.nodes))
}

// killLeader ends the leader's process with SIGKILL and measures how long it takes
// until the cluster accepts a change again.
func killLeader(ctx context.Context, p *player) error {
	leader, err := p.cluster.leader(ctx, p.speakTo)
	if err != nil {
		return err
	}
	survivor := p.cluster.otherManager(leader)
	start := time.Now() // before the process is gone, which takes a moment too
	leader.kill()
	p.killed, p.speakTo = leader, survivor
	took, err := nextWrite(ctx, survivor.api, start, failoverLimit)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "%s, the leader, was killed with SIGKILL; %s accepted the next change %d ms later.\nThe commands now go to %s.\n",
		leader.name, survivor.name, took.Milliseconds(), survivor.name)
	return nil
}

// killWorker ends the last node's process and measures how long it takes until its
// tasks run elsewhere.
func killWorker(ctx context.Context, p *player) error {
	p.killed = p.cluster.nodes[len(p.cluster.nodes)-1]
	id, err := p.killed.id(ctx)
	if err != nil {
		return err
	}
	const service, replicas = "timecheck", 6
	start := time.Now()
	p.killed.kill()
	err = timer{api: p.speakTo.api}.running(ctx, service, replicas, func(t swarm.Task) bool { return t.NodeID != id })
	if err != nil {
		return err
	}
	fmt.Fprintf(p.out, "%s was killed with SIGKILL; all %d tasks ran on the other nodes %d ms later.\n", p.killed.name, replicas, time.Since(start).Milliseconds())
	return nil
}

func startKilled(ctx context.Context, p *player) error {
	if err := p.killed.start(ctx); err != nil {
		return err
	}
	fmt.Fprintf(p.out, "%s runs again, on the data it had.\n", p.killed.name)
	return nil
}

// otherManager is a running manager that isn't n; the first three nodes are managers.
func (p *processes) otherManager(n *node) *node {
	for _, m := range p.nodes[:min(3, len(p.nodes))] {
		if m != n && m.running() {
			return m
		}
	}
	return nil
}

// nextWrite asks for a change, again and again, and tells how long after since the
// first one was accepted. It undoes the change.
func nextWrite(ctx context.Context, api *client.Client, since time.Time, limit time.Duration) (time.Duration, error) {
	var none uint64
	var id string
	err := until(ctx, limit, "a change to be accepted", func(ctx context.Context) error {
		resp, err := api.ServiceCreate(ctx, swarm.ServiceSpec{
			Annotations:  swarm.Annotations{Name: fmt.Sprintf("probe-%d", time.Now().UnixNano())},
			TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: oldImage}},
			Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &none}},
		}, swarm.ServiceCreateOptions{})
		id = resp.ID
		return err
	})
	took := time.Since(since)
	if err != nil {
		return took, err
	}
	return took, api.ServiceRemove(ctx, id)
}

// marks are what the story hands to the cluster and nobody may find in a file: names,
// labels, environment values, images.
var marks = []string{"canary-name", "canary-key", "canary-label", "canary-env", "timecheck"}

// findNoMarks looks through all that the nodes keep.
func findNoMarks(_ context.Context, p *player) error {
	files, size := 0, int64(0)
	for _, n := range p.cluster.nodes {
		err := filepath.WalkDir(filepath.Join(n.dir, "data"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a file that was replaced while we looked
			} else if err != nil {
				return err
			}
			files, size = files+1, size+int64(len(content))
			for _, mark := range marks {
				if bytes.Contains(content, []byte(mark)) {
					return fmt.Errorf("%s contains %q in the clear", path, mark)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if files == 0 || size == 0 {
		return errors.New("the nodes keep no files: nothing was looked at")
	}
	fmt.Fprintf(p.out, "%d files with %d kB on %d nodes: none contains any of %q.\n", files, size>>10, len(p.cluster.nodes), marks)
	return nil
}

// waitForNoContainer waits until the agents have removed all that they made.
func waitForNoContainer(ctx context.Context, p *player) error {
	if p.cluster.driver != "docker" {
		return nil
	}
	engine, err := connect(p.cluster.engine)
	if err != nil {
		return err
	}
	defer engine.Close()
	return until(ctx, patience, "the containers to go", func(ctx context.Context) error {
		for id := range p.cluster.ids {
			list, err := engine.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", nodeLabel+"="+id))})
			if err != nil {
				return err
			}
			if len(list) > 0 {
				return fmt.Errorf("%s is still there", list[0].Names[0])
			}
		}
		return nil
	})
}

// stopAll stops the nodes with SIGTERM, workers first, the leader among the rest.
func stopAll(_ context.Context, p *player) error {
	for i := len(p.cluster.nodes) - 1; i >= 0; i-- {
		if err := p.cluster.nodes[i].stop(); err != nil {
			return err
		}
	}
	fmt.Fprintln(p.out, "All five ended with status 0.")
	return nil
}
