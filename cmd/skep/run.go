package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"skep/agent"
	"skep/agent/docker"
	"skep/agent/simulate"
	"skep/cluster"
	"skep/cluster/node"
)

// runDaemon puts the parts of a node together and runs it until ctx ends, which is an
// orderly stop and no error.
func runDaemon(ctx context.Context, o daemonOptions) error {
	log := o.logger()
	if err := noDumps(); err != nil {
		log.Warn("a crash may leave a core file with keys in it", "err", err)
	}
	if os.Getenv("GOGC") == "" {
		// The database is small and changes fast: an eighth of a manager's work under many
		// writes was collecting garbage.
		debug.SetGCPercent(200)
	}
	driver, err := o.newDriver()
	if err != nil {
		return err
	}
	log.Info("start", "version", version, "node", o.hostname, "data", o.dataDir, "driver", o.driver)
	if o.tokenDir != "" {
		go keepTokens(ctx, o.hosts[0], o.tokenDir, log)
	}
	if o.clockAhead != 0 {
		log.Warn("this daemon's clock is not the machine's: --clock-ahead is for experiments only", "ahead", o.clockAhead)
	}
	manager, err := newSystemd()
	if err != nil {
		return err
	}
	n, err := node.New(node.Config{
		Now:           func() time.Time { return time.Now().Add(o.clockAhead) },
		DataDir:       o.dataDir,
		Hosts:         o.hosts,
		Engine:        o.engine,
		Driver:        driver,
		Hostname:      o.hostname,
		Halting:       halting,
		Latency:       o.latency,
		Build:         cluster.NewBuild(version),
		Init:          o.init,
		Join:          o.join,
		TokenFile:     o.tokenFile,
		AdvertiseAddr: o.advertiseAddr,
		ListenAddr:    o.listenAddr,
		Availability:  o.availability,
		UnlockKeyFile: o.unlockKeyFile,
		Log:           log,
	})
	if err != nil {
		return fmt.Errorf("skep daemon: %w", err)
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		manager.serve(ctx, n.Serving(), n.Summary)
	}()
	err = n.Run(ctx)
	if ctx.Err() != nil {
		<-told
	}
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		log.Info("stopped", "cause", context.Cause(ctx))
		return nil
	}
	if err != nil {
		return fmt.Errorf("skep daemon: %w", err)
	}
	return nil
}

func (o *daemonOptions) newDriver() (agent.Driver, error) {
	if o.driver == "simulate" {
		return simulate.New(simulate.Config{Hostname: o.hostname}), nil
	}
	return docker.New(docker.Config{Host: o.engine, RuntimeDir: o.runtimeDir})
}
