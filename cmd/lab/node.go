package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/client"
)

// node is one skep daemon as a process of its own: a machine of the experiment.
type node struct {
	process
	addr   string
	dir    string // data, socket and log are in here
	binary string
	flags  []string
	api    *client.Client
}

func newNode(name, addr, dir, binary string, flags ...string) *node {
	return &node{
		process: process{name: name, logFile: filepath.Join(dir, "log")},
		addr:    addr, dir: dir, binary: binary, flags: flags,
	}
}

func (n *node) socket() string { return "unix://" + filepath.Join(n.dir, "skep.sock") }

// start runs the daemon and waits until its API answers.
func (n *node) start(ctx context.Context) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	args := append([]string{"daemon", "--data-dir", filepath.Join(n.dir, "data"), "--host", n.socket(), "--hostname", n.name}, n.flags...)
	if err := n.run(n.binary, args...); err != nil {
		return err
	}
	if n.api == nil {
		api, err := connect(n.socket())
		if err != nil {
			return err
		}
		n.api = api
	}
	return until(ctx, 20*time.Second, "the API of "+n.name, func(ctx context.Context) error {
		_, err := n.api.Ping(ctx)
		return errors.Join(n.alive(), err)
	})
}

// id is the node's ID in the cluster, from its own API.
func (n *node) id(ctx context.Context) (string, error) {
	info, err := n.api.Info(ctx)
	if err != nil {
		return "", err
	}
	if info.Swarm.NodeID == "" {
		return "", errors.New(n.name + " is in no cluster")
	}
	return info.Swarm.NodeID, nil
}
