package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ipv6Prefix is of the hosts' addresses; the number follows.
const ipv6Prefix = "fd77::"

// guestImage is the image of cmd/lab/guest, in two versions; checkedImage is the same, but no
// client is led there before it answers.
func guestImage(version int) string   { return fmt.Sprint("guest:", version) }
func checkedImage(version int) string { return fmt.Sprint("guest-checked:", version) }

// rackHost is a machine with an engine and a node. All its processes descend from its first one, in a process namespace of
// their own, and end with it, whatever they are doing: so nothing is left of it, whatever
// becomes of the lab.
type rackHost struct {
	name, addr, v6, dir, bin string
	fabric                   *fabric
	// resolver is whom its programs ask for names. Nothing need answer there.
	resolver string
	in       *namespace
	first    process
	engine   *engine
	node     *node
	// others share its engine with node.
	others []*node
}

// newRackHost prepares a host. Its control groups are named after the directory that dir is in.
func newRackHost(f *fabric, name, dir, bin string, flags ...string) (*rackHost, error) {
	h := &rackHost{name: name, dir: dir, bin: bin, fabric: f}
	h.first = process{name: "the first process of " + name, logFile: filepath.Join(dir, "first.log")}
	h.engine = &engine{process: process{name: "dockerd of " + name, logFile: filepath.Join(dir, "engine.log")}, dir: filepath.Join(dir, "engine")}
	h.engine.flags = []string{"--cgroup-parent", filepath.Join("/", filepath.Base(filepath.Dir(dir)), name)}
	h.node = newNode(name, "", filepath.Join(dir, "node"), filepath.Join(bin, "skep"), append([]string{"--engine", h.engine.socket()}, flags...)...)
	for _, dir := range []string{h.engine.dir, h.node.dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	h.engine.api, err = connect(h.engine.socket())
	return h, err
}

// plug gives the host its namespaces and connects it.
func (h *rackHost) plug(attach func(*namespace, string) (string, error)) error {
	var err error
	if h.in, err = newNamespace(h.name); err != nil {
		return err
	}
	h.first.in, h.engine.in, h.node.in = h.in, h.in, h.in
	if h.addr, err = attach(h.in, h.name); err != nil {
		return err
	}
	h.node.addr = h.addr
	h.v6, err = addIPv6(h.in, h.addr)
	return err
}

// addIPv6 gives a namespace an address of IPv6 with the number of its other one.
func addIPv6(in *namespace, addr string) (string, error) {
	if err := in.do(func() error {
		var errs []error
		for _, which := range []string{"default", "all"} {
			errs = append(errs, os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/disable_ipv6", []byte("0"), 0))
		}
		return errors.Join(errs...)
	}); err != nil {
		return "", err
	}
	v6 := ipv6Prefix + strings.TrimPrefix(addr, fabricPrefix)
	return v6, in.tool("ip", "addr", "add", v6+"/64", "dev", "eth0", "nodad")
}

// boot starts what a machine runs: its first process, an engine, a node. It is a member of
// the cluster again if it was one.
func (h *rackHost) boot(ctx context.Context) error {
	if err := h.power(ctx); err != nil {
		return err
	}
	return h.node.start(ctx)
}

// power starts what a machine runs but a node.
func (h *rackHost) power(ctx context.Context) error {
	// From here on the thread's children are processes of the host's own.
	if err := h.in.do(func() error { return syscall.Unshare(syscall.CLONE_NEWPID) }); err != nil {
		return fmt.Errorf("make a process namespace for %s: %w", h.name, err)
	}
	if err := os.Truncate(h.first.logFile, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := h.first.run(filepath.Join(h.bin, "guest"), "init"); err != nil {
		return err
	}
	if err := until(ctx, 10*time.Second, h.first.name, func(context.Context) error {
		if h.first.lastLog() != "ready\n" {
			return errors.Join(h.first.alive(), errors.New("it isn't ready"))
		}
		return nil
	}); err != nil {
		return err
	}
	h.in.led = true
	h.engine.proc = fmt.Sprintf("/proc/%d/root/proc", h.first.cmd.Process.Pid)
	// An engine's identity is a file in /etc/docker, and the ways to plugins are in /run. The
	// resolver is the machine outside, where nothing listens: it says so at once.
	resolver := filepath.Join(h.dir, "resolv.conf")
	if err := errors.Join(
		// A machine that starts has no process IDs of others lying about.
		os.RemoveAll(filepath.Join(h.engine.dir, "exec")),
		os.WriteFile(resolver, fmt.Appendf(nil, "nameserver %s\n", h.resolver), 0o644),
		h.in.tool("mount", "--bind", resolver, "/etc/resolv.conf"),
		h.in.tool("mount", "-t", "tmpfs", "tmpfs", "/run"),
		h.in.tool("mkdir", "-p", "/etc/docker"),
		h.in.tool("mount", "-t", "tmpfs", "tmpfs", "/etc/docker"),
	); err != nil {
		return err
	}
	// An engine drops what others send through the machine when it is the one that has it
	// forward: as on a machine that does nothing else.
	if err := h.in.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) }); err != nil {
		return err
	}
	if err := h.engine.start(ctx); err != nil {
		return err
	}
	for version := 1; version <= 2; version++ {
		dockerfile := fmt.Sprintf("FROM scratch\nCOPY guest /guest\nENV GUEST_VERSION=%d\nENTRYPOINT [\"/guest\"]\n", version)
		if err := buildImage(ctx, h.engine.socket(), guestImage(version), dockerfile, filepath.Join(h.bin, "guest")); err != nil {
			return err
		}
		dockerfile = "FROM " + guestImage(version) + "\nHEALTHCHECK --interval=1s --timeout=3s CMD [\"/guest\", \"get\", \"http://127.0.0.1/health\"]\n"
		if err := buildImage(ctx, h.engine.socket(), checkedImage(version), dockerfile); err != nil {
			return err
		}
	}
	return nil
}

// cut takes the host's power: it says nothing more to anybody, and all that it was doing is
// gone but what is on its disk.
func (h *rackHost) cut() {
	h.fabric.disturb(linkFault{nodes: []string{h.name}, in: true, out: true})
	h.first.kill()
	h.in.close()
}

// restore gives the power back and waits for the node's API.
func (h *rackHost) restore(ctx context.Context) error {
	if err := h.plug(h.fabric.replug); err != nil {
		return err
	}
	h.fabric.heal([]string{h.name})
	return h.boot(ctx)
}

// program runs a program in the host's namespaces and returns what it printed.
func (h *rackHost) program(ctx context.Context, name string, args ...string) (string, error) {
	return runIn(ctx, h.in, name, args...)
}

// runIn runs a program in a namespace and returns what it printed to its standard output.
func runIn(ctx context.Context, in *namespace, name string, args ...string) (string, error) {
	p := &piped{}
	if err := p.start(in, name, args...); err != nil {
		return "", err
	}
	return p.wait(ctx)
}

// words are what a program says while others read it.
type words struct {
	mu   sync.Mutex // guards the field below
	text bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// piped is a program that runs in a namespace and whose words are kept.
type piped struct {
	cmd      *exec.Cmd
	out, err words
}

func (p *piped) start(in *namespace, name string, args ...string) error {
	p.cmd = exec.Command(name, args...)
	p.cmd.Stdout = &p.out
	return p.begin(in)
}

// stream starts the program, whose output is for the caller to read, who waits for its end then.
func (p *piped) stream(in *namespace, name string, args ...string) (io.Reader, error) {
	p.cmd = exec.Command(name, args...)
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return out, p.begin(in)
}

func (p *piped) begin(in *namespace) error {
	p.cmd.Stderr, p.cmd.WaitDelay = &p.err, time.Second
	if !in.led {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	return in.do(p.cmd.Start)
}

// wait waits for its end, at most until ctx ends.
func (p *piped) wait(ctx context.Context) (string, error) {
	defer context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })()
	if err := p.cmd.Wait(); err != nil {
		return p.out.String(), fmt.Errorf("%s: %w: %s", strings.Join(p.cmd.Args, " "), err, strings.TrimSpace(p.err.String()))
	}
	return p.out.String(), nil
}

// close ends all that runs on the host.
func (h *rackHost) close() {
	h.first.kill()
	if h.in != nil {
		h.in.close()
	}
	h.engine.api.Close()
	for _, n := range append(h.others, h.node) {
		if n.api != nil {
			n.api.Close()
		}
	}
}

// removeHosts removes what hosts below a directory have on the machine's disk and in its
// control groups.
func removeHosts(dir string) error { return errors.Join(removeGroups(dir), os.RemoveAll(dir)) }

// removeGroups removes the control groups of hosts below a directory.
func removeGroups(dir string) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		groups, _ := filepath.Glob(pattern + filepath.Base(dir))
		for _, group := range groups {
			errs = append(errs, until(context.Background(), 5*time.Second, "control group "+group+" to be empty", func(context.Context) error {
				return removeGroup(group)
			}))
		}
	}
	return errors.Join(errs...)
}

// removeGroup removes a control group and those below it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}
