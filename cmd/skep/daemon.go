package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"skep/cluster"
	"skep/cluster/node"
)

// daemonOptions are what the flags of `skep daemon` say.
type daemonOptions struct {
	dataDir   string
	auditFile string
	hosts     []string
	group     string
	gid       *int // that of group; nil without one
	engine    string
	driver    string
	hostname  string
	latency   string
	// runtimeDir is where the docker driver keeps secrets and configs, on a tmpfs.
	runtimeDir string
	// hostRoot is where the machine's root directory is, for a daemon in a container; "" is /.
	hostRoot string

	logLevel  string
	logFormat string

	init          bool
	stopTasks     bool
	join          []string
	tokenFile     string
	tokenDir      string
	advertiseAddr string
	listenAddr    string
	availability  string
	dataPathAddr  string

	// For a new cluster.
	addrPools                []string
	subnetSize, dataPathPort uint32

	unlockKeyFile string

	metrics node.MetricsPort
	console node.ConsolePort
	// metricsDetail says what there is in metrics.
	metricsDetail     string
	metricsSwarmNames bool

	// clockAhead is for experiments: how far the daemon's clock is ahead of the machine's.
	clockAhead time.Duration
	// profileSocket is for experiments, too: where profiles are served; "" is nowhere.
	profileSocket string
}

func newDaemonCommand() *cobra.Command {
	var o daemonOptions
	cmd := &cobra.Command{
		Use:   "daemon [OPTIONS]",
		Short: "Run a node of the cluster on this machine",
		Long: `Run a node of the cluster on this machine.

Without --init or --join the node waits for "swarm init" or "swarm join" through its
API. With one of them it does that by itself, unless it is a member already, so that
the same command line serves every start. With both, it makes a new cluster only when
--token-file isn't there and no manager answers at the machines that --join names.
SIGTERM stops the node in order: a leader hands over first, and the containers go on
running.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if host := cmd.Root().Flags().Lookup("host"); host != nil && host.Changed {
				return usageError("write --host after \"daemon\": before it, it names a node to speak to")
			}
			if err := o.check(); err != nil {
				return usageError(err.Error())
			}
			return runDaemon(cmd.Context(), o)
		},
	}
	o.install(cmd.Flags())
	return cmd
}

// installPlaces has the flags that say where what is of the node on its machine.
func (o *daemonOptions) installPlaces(fs *pflag.FlagSet) {
	fs.StringVar(&o.dataDir, "data-dir", "/var/lib/skep", "Where the node keeps its state")
	fs.StringVar(&o.engine, "engine", "unix:///var/run/docker.sock", "The machine's Docker Engine")
	fs.StringVar(&o.runtimeDir, "runtime-dir", "/run/skep/tasks", "Where tasks' secrets and configs are, in memory only; the engine must see it at the same path")
	fs.StringVar(&o.hostRoot, "host-root", "", "In a container on the machine's network, where the machine's root directory is, for networks: its iptables are run, and its /proc/sys is written")
}

func (o *daemonOptions) install(fs *pflag.FlagSet) {
	o.installPlaces(fs)
	fs.BoolVar(&o.stopTasks, "stop-tasks", false, "Stop the node's containers when the daemon stops in order, as a machine does that is halted, and remove its networks with the engine's last node")
	fs.StringArrayVarP(&o.hosts, "host", "H", []string{defaultHost}, "Socket to serve the API on; may be repeated")
	fs.StringVar(&o.group, "group", "", "Group that may use these sockets (NAME|ID, default the daemon's own): they have root's rights")
	fs.StringVar(&o.driver, "driver", "docker", `What runs tasks ("docker", or "simulate": nothing runs, but behaves)`)
	fs.StringVar(&o.hostname, "hostname", "", "Name of the node (default the machine's)")
	fs.StringVar(&o.latency, "latency", cluster.LatencyLAN, `How far apart the cluster's nodes are ("local", "lan", "wan"): how long they wait before they act; the same for all of them`)
	fs.StringVar(&o.auditFile, "audit-file", "", "File for a line about each request that changes something, of mode 600; at 64 MiB it goes on anew, and the one before is kept as FILE.1; - for the log")
	fs.StringVarP(&o.logLevel, "log-level", "l", "info", `Least level to log ("debug", "info", "warn", "error")`)
	fs.StringVar(&o.logFormat, "log-format", "text", `Form of the log ("text", "json")`)
	fs.BoolVar(&o.init, "init", false, "Make a new cluster unless the node is in one, or those named by --join have one")
	fs.StringSliceVar(&o.join, "join", nil, "Managers to join (HOST[:PORT],...) unless the node is in a cluster; a member looks for the others there, too, after they moved")
	fs.StringVar(&o.tokenFile, "token-file", "", "File with the join token; may appear later than the daemon starts")
	fs.StringVar(&o.tokenDir, "token-dir", "", "While a manager, keep the cluster's join tokens in this directory, as \"manager\" and \"worker\"")
	fs.StringVar(&o.advertiseAddr, "advertise-addr", "", "Address other nodes reach this one at (ADDRESS|INTERFACE[:PORT])")
	fs.StringVar(&o.listenAddr, "listen-addr", "", "Address to listen at for other nodes (ADDRESS|INTERFACE[:PORT], default the advertised one)")
	fs.StringVar(&o.dataPathAddr, "data-path-addr", "", "Address or interface for packets of networks that span nodes (ADDRESS|INTERFACE, default the advertised one)")
	fs.StringSliceVar(&o.addrPools, "default-addr-pool", nil, "With --init, what subnets of networks are cut from (default 10.0.0.0/8)")
	fs.Uint32Var(&o.subnetSize, "default-addr-pool-mask-length", cluster.DefaultSubnetBits, "With --init, the length of the subnets' prefixes")
	fs.Uint32Var(&o.dataPathPort, "data-path-port", 0, "With --init, the UDP port for packets of networks that span nodes (1024 to 49151, default 4789)")
	fs.StringVar(&o.availability, "availability", "active", `Availability to join with ("active", "pause", "drain")`)
	fs.StringVar(&o.unlockKeyFile, "unlock-key-file", "", "File with the unlock key, for a manager of an autolocked cluster to start by itself; best not on the disk of --data-dir")
	fs.StringVar(&o.console.Addr, "console-addr", "", "Serve the console to browsers of other machines here (IP:PORT), by TLS, while a manager; \"skep console\" needs no such port")
	fs.StringVar(&o.console.CertFile, "console-cert", "", "Certificate for that (PEM; default the node's own, which browsers don't know)")
	fs.StringVar(&o.console.KeyFile, "console-key", "", "Its key (PEM)")
	fs.StringVar(&o.console.TokenFile, "console-token-file", "", `File with lines of "read TOKEN [NAME]" or "write TOKEN [NAME]", of mode 600 or 640: who has one is let in`)
	fs.StringVar(&o.metrics.Addr, "metrics-addr", "", "Serve metrics for Prometheus here (IP:PORT), and nothing else; they are at /metrics of the API's sockets anyway")
	fs.BoolVar(&o.metrics.TLS, "metrics-tls", false, "Serve them with the node's certificate; without --metrics-token-file, clients need one of the cluster, too")
	fs.StringVar(&o.metrics.TokenFile, "metrics-token-file", "", "File with what clients must show as a bearer token")
	fs.BoolVar(&o.metrics.Insecure, "metrics-insecure", false, "Serve them to anybody, also beyond this machine, or a token without TLS")
	fs.BoolVar(&o.metricsSwarmNames, "metrics-swarm-names", false, "Tell what Docker Swarm's managers tell, by its names, too, for dashboards that were made for it")
	fs.StringVar(&o.metricsDetail, "metrics-detail", "service", `What they tell of there ("service", or "node": nothing that names services)`)
	fs.DurationVar(&o.clockAhead, "clock-ahead", 0, "For experiments: how far the daemon's clock is ahead of the machine's")
	fs.StringVar(&o.profileSocket, "profile-socket", "", "For experiments: serve profiles of the daemon's processor time and memory at this path")
	if err := errors.Join(fs.MarkHidden("clock-ahead"), fs.MarkHidden("profile-socket")); err != nil {
		panic(err) // they are there
	}
}

// check refuses what cannot work, before anything is touched, and completes the rest.
func (o *daemonOptions) check() error {
	oneOf := func(flag, value string, allowed ...string) error {
		if slices.Contains(allowed, value) {
			return nil
		}
		return fmt.Errorf("--%s %q: want one of %s", flag, value, strings.Join(allowed, ", "))
	}
	if err := errors.Join(
		oneOf("driver", o.driver, "docker", "simulate"),
		oneOf("log-level", o.logLevel, "debug", "info", "warn", "error"),
		oneOf("log-format", o.logFormat, "text", "json"),
		oneOf("latency", o.latency, cluster.LatencyLocal, cluster.LatencyLAN, cluster.LatencyWAN),
		oneOf("availability", o.availability, "active", "pause", "drain"),
		oneOf("metrics-detail", o.metricsDetail, "service", "node"),
		checkHosts(o.hosts),
		o.checkGroup(),
		o.checkEngine(),
	); err != nil {
		return err
	}
	if err := errors.Join(o.checkDirs(), o.checkMetrics(), o.console.Check()); err != nil {
		return err
	}
	switch {
	case !o.init && (len(o.addrPools) > 0 || o.dataPathPort != 0 || o.subnetSize != cluster.DefaultSubnetBits):
		return errors.New("--default-addr-pool, --default-addr-pool-mask-length and --data-path-port are for a new cluster: they need --init")
	case o.tokenFile != "" && len(o.join) == 0:
		return errors.New("--token-file needs --join HOST[:PORT]")
	}
	if o.init && o.tokenFile == "" && o.tokenDir != "" {
		o.tokenFile = filepath.Join(o.tokenDir, "manager") // It tells that there was a cluster.
	}
	if o.hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the machine's name (use --hostname): %w", err)
		}
		o.hostname = name
	}
	return nil
}

// checkMetrics refuses what would leave metrics open.
func (o *daemonOptions) checkMetrics() error {
	o.metrics.NoServices = o.metricsDetail == "node"
	return o.metrics.Check()
}

// checkDirs refuses directories that can't be meant, and has the data directory's whole path.
func (o *daemonOptions) checkDirs() (err error) {
	switch {
	case o.dataDir == "":
		return errors.New("--data-dir is empty")
	case !filepath.IsAbs(o.runtimeDir) || filepath.Clean(o.runtimeDir) == "/":
		return fmt.Errorf("--runtime-dir %q: want an absolute path below the root", o.runtimeDir)
	case o.hostRoot != "" && (!filepath.IsAbs(o.hostRoot) || filepath.Clean(o.hostRoot) == "/"):
		return fmt.Errorf("--host-root %q: want an absolute path below the root", o.hostRoot)
	}
	if o.auditFile != "" && o.auditFile != cluster.AuditToLog {
		if o.auditFile, err = filepath.Abs(o.auditFile); err != nil {
			return err
		}
	}
	o.dataDir, err = filepath.Abs(o.dataDir)
	return err
}

// checkGroup finds the group.
func (o *daemonOptions) checkGroup() error {
	if o.group == "" {
		return nil
	}
	if !slices.ContainsFunc(o.hosts, func(h string) bool { return strings.HasPrefix(h, "unix://") }) {
		return errors.New("--group is for sockets at paths: it needs a --host unix:///path")
	}
	id := o.group
	if g, err := user.LookupGroup(o.group); err == nil {
		id = g.Gid
	}
	gid, err := strconv.ParseUint(id, 10, 31)
	if err != nil {
		return fmt.Errorf("--group %s: there is no such group", o.group)
	}
	o.gid = new(int(gid))
	return nil
}

// checkHosts refuses sockets that would be of no use or open to anyone.
func checkHosts(hosts []string) error {
	if len(hosts) == 0 {
		return errors.New("--host: want at least one socket")
	}
	seen := map[string]bool{}
	for _, h := range hosts {
		if seen[h] {
			return fmt.Errorf("--host %s is given twice", h)
		}
		seen[h] = true
		scheme, addr, _ := strings.Cut(h, "://")
		switch scheme {
		case "unix":
			if !filepath.IsAbs(addr) {
				return fmt.Errorf("--host %s: want unix:///absolute/path", h)
			}
		case "tcp":
			name, _, err := net.SplitHostPort(addr)
			if err != nil {
				return fmt.Errorf("--host %s: want tcp://ADDRESS:PORT: %w", h, err)
			}
			if ip, err := netip.ParseAddr(name); name != "localhost" && (err != nil || !ip.IsLoopback()) {
				return fmt.Errorf("--host %s: whoever reaches the API owns the machine, so tcp:// is for loopback addresses only", h)
			}
		default:
			return fmt.Errorf("--host %s: want unix:///path or tcp://127.0.0.1:PORT", h)
		}
	}
	return nil
}

func (o *daemonOptions) checkEngine() error {
	if o.engine == "" && o.driver == "simulate" {
		return nil // nothing will run, and what isn't the swarm's is refused
	}
	scheme, addr, ok := strings.Cut(o.engine, "://")
	if !ok || addr == "" || scheme != "unix" && scheme != "tcp" {
		return fmt.Errorf("--engine %q: want unix:///path or tcp://ADDRESS:PORT", o.engine)
	}
	return nil
}

// logger is the daemon's log, on standard error, as systemd and container engines want it.
func (o *daemonOptions) logger() *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(o.logLevel)) // checked before
	opts := &slog.HandlerOptions{Level: level}
	handler := func(w io.Writer) slog.Handler {
		if o.logFormat == "json" {
			return slog.NewJSONHandler(w, opts)
		}
		return slog.NewTextHandler(w, opts)
	}
	if toJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
		return slog.New(newJournal(os.Stderr, handler))
	}
	return slog.New(handler(os.Stderr))
}

// usageError is a wrong command line.
func usageError(text string) error {
	return cli.StatusError{StatusCode: 125, Status: "skep daemon: " + text}
}
