package up

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"golang.org/x/sys/unix"

	"skep/cluster"
)

// Where things are on a machine.
const (
	binaryPath   = "/usr/local/bin/skep"
	packagedPath = "/usr/bin/skep"
	formerPath   = binaryPath + ".before"
	stagedPrefix = "/usr/local/bin/.skep-"
	unitPath     = "/etc/systemd/system/skep.service"
	dataDir      = "/var/lib/skep"
	nodeSocket   = "/run/skep/skep.sock"
	engineSocket = "/var/run/docker.sock"
)

// UnitMark is the first line of a unit that this package has written, which it may replace.
const UnitMark = "# Written by \"skep up\". Change it by \"systemctl edit skep\".\n"

// lookLimit bounds each question to the engine and the daemon.
const lookLimit = 15 * time.Second

// Look finds out the facts of the machine that it runs on. The program gives what this package can't know.
type Look struct {
	Version, Unit string
	// NoNetworks says what the kernel lacks for networks.
	NoNetworks func() error
	// Encryption says what keeps networks from being encrypted, or makes that slow.
	Encryption func() string
	// InTheWay says what is in the way of an upgrade to this binary.
	InTheWay func(cluster.Status) []string
	Now      func() time.Time
}

// Facts are those of the machine that this runs on, as root.
func (l Look) Facts(ctx context.Context) Facts {
	f := Facts{Now: l.Now(), Addresses: addresses(ctx)}
	f.Hostname, _ = os.Hostname()
	f.MachineID = firstLine("/etc/machine-id")
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		version, _, _ := strings.Cut(output(ctx, "systemctl", "--version"), "\n")
		f.Systemd = strings.TrimPrefix(version, "systemd ")
	}
	if err := l.NoNetworks(); err != nil {
		f.NoNetworks = err.Error()
	} else {
		f.Encryption = l.Encryption()
	}
	var disk unix.Statfs_t
	if unix.Statfs("/var/lib", &disk) == nil {
		f.DiskFree, f.DiskSize = disk.Bavail*uint64(disk.Bsize), disk.Blocks*uint64(disk.Bsize)
	}
	f.Engine = engine(ctx)
	f.Skep = l.skep(ctx)
	f.Node, f.Cluster = l.node(ctx, f.Skep.Running != digestLike("/proc/self/exe", f.Skep.Path, f.Skep.Digest))
	return f
}

func output(ctx context.Context, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	out, _ := exec.CommandContext(ctx, name, args...).Output()
	return strings.TrimSpace(string(out))
}

func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

// digest is that of a file; empty when there is none.
func digest(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// skep is what is installed and what runs.
func (l Look) skep(ctx context.Context) Skep {
	var s Skep
	switch {
	case exists(binaryPath):
		s.Path = binaryPath
	case exists(packagedPath):
		s.Path, s.Packaged = packagedPath, true
	}
	if s.Path != "" {
		s.Digest = digest(s.Path)
		s.Version = strings.TrimPrefix(output(ctx, s.Path, "--version"), "skep version ")
	}
	shown := map[string]string{}
	for line := range strings.Lines(output(ctx, "systemctl", "show", "-p", "MainPID,FragmentPath,UnitFileState", "skep.service")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		shown[name] = value
	}
	s.Enabled = shown["UnitFileState"] == "enabled"
	switch unit, err := os.ReadFile(unitPath); {
	case err == nil && string(unit) == UnitMark+l.Unit:
		s.Unit = UnitCurrent
	case err == nil && strings.HasPrefix(string(unit), UnitMark):
		s.Unit = UnitOld
	case err == nil:
		s.Unit = UnitByHand
	case shown["FragmentPath"] != "":
		s.Unit = UnitPackaged
	}
	if pid := shown["MainPID"]; pid != "" && pid != "0" {
		s.Running = digestLike(filepath.Join("/proc", pid, "exe"), s.Path, s.Digest)
	}
	s.Data = exists(filepath.Join(dataDir, "identity.key"))
	return s
}

// digestLike is a file's digest; known is that of another path, which may be the same file.
func digestLike(path, other, known string) string {
	a, err := os.Stat(path)
	if b, otherErr := os.Stat(other); err == nil && otherErr == nil && os.SameFile(a, b) {
		return known
	}
	return digest(path)
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// addresses are those that other machines may reach this one by: not those of the engine's bridges, and
// of what stands between containers.
func addresses(ctx context.Context) (all []Address) {
	all = []Address{}
	bridges := engineBridges(ctx)
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		virtual := bridges[i.Name] || strings.HasPrefix(i.Name, "docker") || strings.HasPrefix(i.Name, "veth") || strings.HasPrefix(i.Name, "sk")
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 || virtual {
			continue
		}
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || prefix.Addr().IsLinkLocalUnicast() {
				continue
			}
			all = append(all, Address{prefix.Addr().Unmap(), i.Name, i.MTU})
		}
	}
	return all
}

// engineBridges are the interfaces of the engine's networks.
func engineBridges(ctx context.Context) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	names := map[string]bool{}
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+engineSocket), client.WithAPIVersionNegotiation())
	if err != nil {
		return names
	}
	defer c.Close()
	networks, err := c.NetworkList(ctx, network.ListOptions{})
	for _, n := range networks {
		if err == nil && n.Driver == "bridge" {
			names[n.Options["com.docker.network.bridge.name"]] = true
			names["br-"+n.ID[:min(12, len(n.ID))]] = true
		}
	}
	return names
}

func engine(ctx context.Context) (e Engine) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+engineSocket), client.WithAPIVersionNegotiation())
	if err != nil {
		return Engine{Error: err.Error()}
	}
	defer c.Close()
	version, err := c.ServerVersion(ctx)
	if err != nil {
		return Engine{Error: err.Error()}
	}
	e.Version, e.API = version.Version, version.APIVersion
	info, err := c.Info(ctx)
	switch {
	case err != nil:
		e.Error = err.Error()
	case info.Swarm.LocalNodeState != "" && info.Swarm.LocalNodeState != swarm.LocalNodeStateInactive:
		e.Swarm = strings.TrimSpace("node " + info.Swarm.NodeID + " " + string(info.Swarm.LocalNodeState))
	}
	return e
}

// node is what the daemon says; nothing while none answers. One that is to be upgraded says what is in the way.
func (l Look) node(ctx context.Context, upgrade bool) (n Node, known *Cluster) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+nodeSocket), client.WithAPIVersionNegotiation())
	if err != nil {
		return n, nil
	}
	defer c.Close()
	info, err := c.Info(ctx)
	if err != nil {
		return n, nil
	}
	own := info.Swarm
	n = Node{State: own.LocalNodeState, ID: own.NodeID, Addr: own.NodeAddr, Error: own.Error, Manager: own.ControlAvailable}
	if !n.Manager {
		return n, nil
	}
	known = &Cluster{}
	if own.Cluster != nil {
		known.ID, known.DataPort = own.Cluster.ID, int(own.Cluster.DataPathPort)
	}
	path := "/skep/v1/status"
	if upgrade {
		path += "?digests=1"
	}
	if err := get(ctx, c, path, &known.Status); err != nil {
		known.Error = err.Error()
		return n, known
	}
	if upgrade {
		known.InTheWay = l.InTheWay(known.Status)
	}
	nodes, err := c.NodeList(ctx, swarm.NodeListOptions{})
	if err != nil {
		known.Error = err.Error()
		return n, known
	}
	known.Labels = map[string]map[string]string{}
	for _, node := range nodes {
		known.Labels[node.ID] = node.Spec.Labels
	}
	return n, known
}

// get asks the daemon for what docker's client has no call for.
func get(ctx context.Context, c *client.Client, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://skep"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.HTTPClient().Do(req)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var refusal struct{ Message string }
		_ = json.NewDecoder(io.LimitReader(resp.Body, mostAnswer)).Decode(&refusal)
		return fmt.Errorf("ask the daemon: %s %s", resp.Status, refusal.Message)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, mostAnswer)).Decode(into)
}

// mostAnswer bounds what is read of a machine's answer.
const mostAnswer = 64 << 20
