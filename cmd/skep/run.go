package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"skep/agent"
	"skep/agent/docker"
	"skep/agent/network"
	"skep/agent/network/linux"
	planes "skep/agent/network/simulate"
	"skep/agent/simulate"
	"skep/cluster"
	"skep/cluster/node"
	"skep/cluster/telemetry"
	"skep/cluster/trace"
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
	carries := o.newPlane(log)
	plane := carries.plane
	driver, err := o.newDriver(plane)
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
	if o.profileSocket != "" {
		if err := serveProfiles(ctx, o.profileSocket, log); err != nil {
			return err
		}
	}
	manager, err := newSystemd()
	if err != nil {
		return err
	}
	metrics := telemetry.New()
	if err := metrics.OfProcess(); err != nil {
		return fmt.Errorf("skep daemon: %w", err)
	}
	tracer, err := trace.FromEnvironment(os.Getenv, version, time.Now, log)
	if err != nil {
		return fmt.Errorf("skep daemon: %w", err)
	}
	defer tracer.Close()
	n, err := node.New(node.Config{
		Trace:       tracer,
		Metrics:     metrics,
		MetricsPort: o.metrics,
		ConsolePort: o.console,

		MetricsSwarmNames: o.metricsSwarmNames,

		Now:            func() time.Time { return time.Now().Add(o.clockAhead) },
		DataDir:        o.dataDir,
		AuditFile:      o.auditFile,
		Hosts:          o.hosts,
		Group:          o.gid,
		Engine:         o.engine,
		Driver:         driver,
		Plane:          plane,
		NoPlane:        carries.lack,
		NoEncryption:   carries.noEncryption,
		SlowEncryption: carries.slowEncryption,
		Names:          o.passNames(plane),
		EndHelpers:     o.endHelpers,
		Hostname:       o.hostname,
		StopTasks:      o.stopTasks,
		Halting:        func() bool { return o.stopTasks || halting() },
		Latency:        o.latency,
		Build:          cluster.NewBuild(version),
		Init:           o.init,
		Join:           o.join,
		TokenFile:      o.tokenFile,
		AdvertiseAddr:  o.advertiseAddr,
		ListenAddr:     o.listenAddr,
		Availability:   o.availability,

		DataPathAddr:    o.dataPathAddr,
		DataPathPort:    o.dataPathPort,
		DefaultAddrPool: o.addrPools,
		SubnetSize:      o.subnetSize,

		UnlockKeyFile: o.unlockKeyFile,
		Log:           log,
	})
	if err != nil {
		return fmt.Errorf("skep daemon: %w", err)
	}
	if plane != nil && o.driver == "docker" {
		go o.keepHelpers(ctx, n.CarriesFor, log)
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

// slowEncryption is why encrypted networks are slow where they are.
const slowEncryption = "the kernel has no WireGuard, and a process does its work: load the module wireguard"

// carrier is what carries networks on a machine, or why nothing does, or nothing encrypted ones, or only slowly.
type carrier struct {
	plane                              network.Plane
	lack, noEncryption, slowEncryption string
}

func (o *daemonOptions) newPlane(log *slog.Logger) carrier {
	if o.driver == "simulate" {
		return carrier{plane: planes.New()}
	}
	linux.UseHost(o.hostRoot)
	if err := linux.Check(); err != nil {
		return carrier{lack: err.Error()}
	}
	c := carrier{plane: linux.New(log.With("part", "networks"), o.wiresFile)}
	slow, err := linux.CheckEncryption()
	switch {
	case err != nil:
		c.noEncryption = err.Error()
	case slow:
		c.slowEncryption = slowEncryption
	}
	return c
}

func (o *daemonOptions) newDriver(plane network.Plane) (agent.Driver, error) {
	if o.driver == "simulate" {
		bridges, _ := plane.(simulate.Bridges)
		return simulate.New(simulate.Config{Hostname: o.hostname, Bridges: bridges}), nil
	}
	return docker.New(docker.Config{Host: o.engine, RuntimeDir: o.runtimeDir, SetMAC: linux.SetMAC, Listens: linux.Listens})
}
