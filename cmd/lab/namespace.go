package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// namespace is a machine of an experiment: a network, mounts and a host name of its
// own. It has no name on this machine and is held by a thread only, so it is gone with
// the last process in it, whatever happens to the lab.
type namespace struct {
	work chan func()
	id   string // what the kernel calls its network
	// led is set once its processes have one of their own to end with, the first in a process
	// namespace. They see no parent outside, and would take it for dead.
	led bool
}

// newNamespace makes one with the host name, on a thread of its own. It needs root.
func newNamespace(hostname string) (*namespace, error) {
	n := &namespace{work: make(chan func())}
	made := make(chan error)
	go n.hold(hostname, made)
	if err := <-made; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return n, nil
}

// hold is the thread's life. It is never given back: it ends with the goroutine, and
// its end is the parent-death signal of the processes that were started from it.
func (n *namespace) hold(hostname string, made chan<- error) {
	runtime.LockOSThread()
	if syscall.Gettid() == os.Getpid() {
		// The process's first thread never ends, and /proc/self shows what it is in. While
		// it is held, the next goroutine gets another.
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.hold(hostname, made)
		}()
		<-ended
		runtime.UnlockOSThread()
		return
	}
	err := syscall.Unshare(syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS)
	if err == nil {
		err = errors.Join(
			syscall.Sethostname([]byte(hostname)),
			// Mounts made here are nobody else's.
			syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
			// IPv6 would only chatter.
			os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0),
		)
	}
	if err == nil {
		n.id, err = os.Readlink("/proc/thread-self/ns/net")
	}
	made <- err
	if err != nil {
		return
	}
	for f := range n.work {
		f()
	}
}

// do runs f inside the namespace; what f starts, lives there.
func (n *namespace) do(f func() error) error {
	done := make(chan error)
	n.work <- func() { done <- f() }
	return <-done
}

// tool runs a system tool inside the namespace.
func (n *namespace) tool(name string, args ...string) error {
	return n.do(func() error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}

// close kills what still runs there, waits for its end and gives the namespace up.
func (n *namespace) close() {
	for range 200 { // what is killed may just have started something
		left := inside(n.id, runningProcesses())
		if len(left) == 0 {
			break
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(look)
	}
	close(n.work)
}

// adoptOrphans makes this process the parent of what its children leave behind, so that
// it can be taken away: an engine that is killed leaves its containerd and its shims.
func adoptOrphans() error {
	const setChildSubreaper = 36 // of linux/prctl.h
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0); errno != 0 {
		return fmt.Errorf("adopt orphans: %w", errno)
	}
	return nil
}

// buryOrphans takes away the adopted processes that have ended. No system tool may be
// running: its end would be taken from who waits for it.
func buryOrphans() {
	for _, p := range runningProcesses() {
		if _, waited := waitedFor.Load(p.pid); p.parent == os.Getpid() && p.ended && !waited {
			_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// runningProcess is what /proc tells of a process.
type runningProcess struct {
	pid, parent int
	ended       bool // and nobody has waited for it yet
	network     string
}

func runningProcesses() []runningProcess {
	var all []runningProcess
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		// A process that has ended has no network, and one may end right now.
		network, _ := os.Readlink(filepath.Join(dir, "ns/net"))
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		// The name in brackets may have spaces; state and parent come after it.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		all = append(all, runningProcess{pid, parent, fields[0] == "Z", network})
	}
	return all
}

// inside are the processes of a network namespace, and those that descend from them:
// an engine's containers have networks of their own.
func inside(network string, all []runningProcess) []int {
	var pids []int
	for _, p := range all {
		if p.network == network && p.pid != os.Getpid() {
			pids = append(pids, p.pid)
		}
	}
	for i := 0; i < len(pids); i++ {
		for _, p := range all {
			if p.parent == pids[i] && !slices.Contains(pids, p.pid) {
				pids = append(pids, p.pid)
			}
		}
	}
	return pids
}
