package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"skep/agent/network"
	"skep/agent/network/dns"
	"skep/agent/network/helper"
	"skep/agent/network/wire"
	"skep/cluster"
)

const (
	// namesMemory is what the process of names takes before it works harder at taking less.
	namesMemory = 64 << 20
	// namesLog is how large the log of a process of names may be when the next one begins.
	namesLog = 1 << 20
)

// newDNSCommand is the process that answers names to containers. The daemon starts it.
func newDNSCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:    "dns --names FILE",
		Short:  "Answer the names of the cluster's networks to the containers of this machine",
		Hidden: true,
		Args:   cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !filepath.IsAbs(file) {
				return cli.StatusError{StatusCode: 125, Status: "skep dns: --names: want the absolute path of a file of names"}
			}
			return runDNS(cmd.Context(), file)
		},
	}
	cmd.Flags().StringVar(&file, "names", "", "File of names that the daemon writes")
	return cmd
}

func runDNS(ctx context.Context, file string) error {
	debug.SetMemoryLimit(namesMemory)
	var seed [32]byte
	_, _ = crand.Read(seed[:])
	log := (&daemonOptions{logLevel: "info"}).logger()
	return dns.Process(ctx, dns.ProcessConfig{
		File: file, Build: program(), Now: time.Now, Random: rand.New(rand.NewChaCha8(seed)), Log: log.With("part", "names"),
	})
}

// newWireCommand is the process that has WireGuard devices where the kernel has none. The daemon starts it.
func newWireCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:    "wire --wires FILE",
		Short:  "Encrypt what is sent between nodes where the kernel has no WireGuard",
		Hidden: true,
		Args:   cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !filepath.IsAbs(file) {
				return cli.StatusError{StatusCode: 125, Status: "skep wire: --wires: want the absolute path of a file of devices"}
			}
			log := (&daemonOptions{logLevel: "info"}).logger().With("part", "wires")
			if err := noDumps(); err != nil {
				log.Warn("a crash may leave a core file with keys in it", "err", err)
			}
			return wire.Process(cmd.Context(), wire.Config{File: file, Build: program(), Log: log})
		},
	}
	cmd.Flags().StringVar(&file, "wires", "", "File of devices that the daemon writes")
	return cmd
}

// program tells this binary from others, also from one of the same version that was built again.
func program() string {
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return version
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%s %d:%d:%d:%d", version, stat.Dev, stat.Ino, info.Size(), info.ModTime().UnixNano())
}

// namesFile is where the names of a cluster are, in memory. Nodes that share an engine share it:
// one of them writes it, and the process goes on when that comes to be another.
func (o *daemonOptions) namesFile(clusterID string) string {
	return filepath.Join(o.runtimeDir, "names-"+clusterID)
}

// passNames passes names on to the process of names; nil where nothing leads questions there.
func (o *daemonOptions) passNames(plane network.Plane) func(string, *dns.Names) error {
	if plane == nil || o.driver != "docker" {
		return nil
	}
	return func(clusterID string, names *dns.Names) error {
		file := o.namesFile(clusterID)
		if names == nil {
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove names: %w", err)
			}
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return fmt.Errorf("write names: %w", err)
		}
		return dns.WriteFile(file, names)
	}
}

// wiresFile is where the WireGuard devices of a cluster are listed that a process has, likewise.
func (o *daemonOptions) wiresFile(clusterID string) string {
	return filepath.Join(o.runtimeDir, "wires-"+clusterID)
}

// endHelpers ends the processes that outlive the daemon: the last node on the engine has left the cluster.
func (o *daemonOptions) endHelpers(clusterID string) error {
	return errors.Join(helper.End(o.namesFile(clusterID)), helper.End(o.wiresFile(clusterID)))
}

// keepHelpers has the processes run that outlive the daemon, while the node carries a cluster's networks,
// which carries tells, and there are files for them. Others on its engine leave that to it.
func (o *daemonOptions) keepHelpers(ctx context.Context, carries func() string, log *slog.Logger) {
	kept, stop := "", func() {}
	for {
		if now := carries(); now != kept {
			stop()
			var keeping context.Context
			keeping, stop = context.WithCancel(ctx)
			if kept = now; kept != "" {
				go newKeeper(log, "names", o.namesFile(kept), "dns", "--names").Run(keeping)
				go newKeeper(log, "wires", o.wiresFile(kept), "wire", "--wires").Run(keeping)
			}
		}
		if !cluster.Sleep(ctx, keepEvery) {
			stop()
			return
		}
	}
}

// keepEvery is how often it is seen whether the node carries networks.
const keepEvery = time.Second

func newKeeper(log *slog.Logger, name, file string, command ...string) *helper.Keeper {
	return &helper.Keeper{
		Name: name, File: file, Build: program(), Now: time.Now, Log: log,
		Command: func() *exec.Cmd {
			// This very binary, though another one may be in its place on the disk.
			cmd := exec.Command("/proc/self/exe", append(command, file)...)
			cmd.Args[0] = "skep"
			cmd.Env = namesEnv(os.Environ())
			// A terminal or a pipe may go with the daemon, the journal doesn't.
			if toJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
				cmd.Stderr = os.Stderr
			} else if out, err := openLog(file + ".log"); err == nil {
				cmd.Stderr = out
			}
			return cmd
		},
	}
}

// namesEnv leaves out what is between systemd and the daemon.
func namesEnv(environ []string) (kept []string) {
	for _, v := range environ {
		if name, _, _ := strings.Cut(v, "="); name == "PATH" || name == "JOURNAL_STREAM" || strings.HasPrefix(name, "GO") {
			kept = append(kept, v)
		}
	}
	return kept
}

func openLog(path string) (*os.File, error) {
	flags := os.O_CREATE | os.O_APPEND | os.O_WRONLY
	if info, err := os.Stat(path); err == nil && info.Size() > namesLog {
		flags |= os.O_TRUNC
	}
	return os.OpenFile(path, flags, 0o600)
}
