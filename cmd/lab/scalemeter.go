package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/errdefs"

	"skep/cmd/lab/crowd"
	"skep/cmd/lab/report"
)

// used is what processes have used so far, in the order of report.Scale.Processes.
type used struct {
	cpu           []float64
	written, wire []int64
}

// meter looks at the processes once a second.
type meter struct {
	x       *scaling
	end     context.CancelFunc
	stopped chan struct{}

	mu sync.Mutex // guards the fields below
	// gone is what managers that were killed had used.
	gone    used
	last    crowd.Count
	samples []report.ScaleSample
}

func (x *scaling) startMeter(ctx context.Context) *meter {
	ctx, cancel := context.WithCancel(ctx)
	n := len(x.run.Processes)
	m := &meter{x: x, end: cancel, stopped: make(chan struct{}), gone: used{make([]float64, n), make([]int64, n), make([]int64, n)}}
	go func() {
		defer close(m.stopped)
		for {
			m.sample()
			if sleep(ctx, time.Second) != nil {
				return
			}
		}
	}()
	return m
}

func (m *meter) stop() {
	m.end()
	<-m.stopped
}

// note takes in how the agents are.
func (m *meter) note(c crowd.Count) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = c
}

// pid of a process; 0 while it doesn't run.
func (x *scaling) pid(process int) int {
	if process >= len(x.p.nodes) {
		return x.crowds[process-len(x.p.nodes)].cmd.Process.Pid
	}
	if n := x.p.nodes[process]; n.running() {
		return n.cmd.Process.Pid
	}
	return 0
}

func (m *meter) sample() {
	now := m.usage()
	s := report.ScaleSample{At: report.Since(m.x.run.Began, time.Now()), CPU: now.cpu}
	for i := range m.x.run.Processes {
		s.RSS = append(s.RSS, residentBytes(m.x.pid(i)))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Sessions, s.Running = m.last.Sessions, m.last.Running
	m.samples = append(m.samples, s)
}

// usage is what all have used so far.
func (m *meter) usage() (u used) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.usageLocked()
}

func (m *meter) usageLocked() (u used) {
	for i := range m.x.run.Processes {
		cpu, io := 0.0, ioCounts{}
		if pid := m.x.pid(i); pid != 0 {
			if t, err := processorTime(pid); err == nil {
				cpu = t.Seconds()
			}
			io, _ = readIO(pid)
		}
		u.cpu = append(u.cpu, m.gone.cpu[i]+cpu)
		u.written = append(u.written, m.gone.written[i]+io.toDisk)
		u.wire = append(u.wire, m.gone.wire[i]+io.read+io.wrote)
	}
	return u
}

// kill kills a manager, and keeps what it had used.
func (m *meter) kill(n *node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	had := m.usageLocked()
	n.kill()
	for i, other := range m.x.p.nodes {
		if other == n {
			m.gone.cpu[i], m.gone.written[i], m.gone.wire[i] = had.cpu[i], had.written[i], had.wire[i]
		}
	}
}

// ioCounts are of /proc/PID/io: read and wrote are of all files and connections.
type ioCounts struct{ read, wrote, toDisk int64 }

func readIO(pid int) (c ioCounts, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return c, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return c, err
		}
		switch name {
		case "rchar":
			c.read = n
		case "wchar":
			c.wrote = n
		case "write_bytes":
			c.toDisk = n
		}
	}
	return c, nil
}

// residentBytes is how much of a process is in memory, in bytes; 0 when it isn't known.
func residentBytes(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// profileOf asks a manager's socket for profiles.
func profileOf(ctx context.Context, n *node, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	socket := filepath.Join(n.dir, "profile.sock")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, method, "http://skep"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s for %s: %w", n.name, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("ask %s for %s: %s", n.name, path, resp.Status)
	}
	return data, err
}

// startProfiles has all managers begin one. One that can't has none in the report.
func (x *scaling) startProfiles(ctx context.Context) {
	for _, n := range x.p.nodes {
		if n.running() {
			_, _ = profileOf(ctx, n, http.MethodPost, "/cpu/start")
		}
	}
}

// stopProfiles writes them, and reads that of the leader and of one follower.
func (x *scaling) stopProfiles(ctx context.Context, s *report.ScaleStep) {
	followers := 0
	for _, n := range x.p.nodes {
		if !n.running() {
			continue
		}
		role := "leader"
		if n.name != s.Leader {
			role = "follower"
			followers++
		}
		if followers < 2 || role == "leader" {
			x.keepProfile(ctx, s, n, role)
		} else {
			_, _ = profileOf(ctx, n, http.MethodPost, "/cpu/stop")
		}
	}
}

// keepProfile ends the profile of one manager and writes it.
func (x *scaling) keepProfile(ctx context.Context, s *report.ScaleStep, n *node, role string) {
	data, err := profileOf(ctx, n, http.MethodPost, "/cpu/stop")
	if err != nil {
		return // Its profile went with the process before, or never began.
	}
	p := report.ScaleProfile{Process: n.name + ", " + role, File: fmt.Sprintf("%s-%s.pprof", strings.ReplaceAll(s.Name, " ", "-"), role)}
	path := filepath.Join(x.o.out, p.File)
	if os.WriteFile(path, data, 0o644) != nil {
		return
	}
	s.Profiles = append(s.Profiles, p)
	if heap, err := profileOf(ctx, n, http.MethodGet, "/heap"); err == nil {
		p.File = strings.TrimSuffix(p.File, ".pprof") + "-heap.pprof"
		if p.Process += ", memory"; os.WriteFile(filepath.Join(x.o.out, p.File), heap, 0o644) == nil {
			s.Profiles = append(s.Profiles, p)
		}
	}
}

// readProfiles has the Go tool say what is in them. Where there is none, the files are what there is.
func (x *scaling) readProfiles(ctx context.Context) {
	for i := range x.run.Steps {
		for j := range x.run.Steps[i].Profiles {
			p := &x.run.Steps[i].Profiles[j]
			if top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=40", filepath.Join(x.o.out, p.File)).Output(); err == nil {
				p.Top = string(top)
			}
		}
	}
}

// state is how all are now. Managers collect their garbage for it.
func (x *scaling) state(ctx context.Context) (s report.ScaleState, err error) {
	for i, p := range x.run.Processes {
		s.RSS = append(s.RSS, residentBytes(x.pid(i)))
		if !p.Manager {
			continue
		}
		n := x.p.nodes[i]
		heap, err := profileOf(ctx, n, http.MethodGet, "/memory")
		if err != nil {
			return s, err
		}
		s.Heap, s.Stack = append(s.Heap, statOf(heap, "HeapAlloc")), append(s.Stack, statOf(heap, "Stack"))
		s.Disk = append(s.Disk, sizeOf(filepath.Join(n.dir, "data")))
	}
	return s, nil
}

// statOf finds a number of the runtime's in a heap profile as text; 0 when it isn't there.
func statOf(profile []byte, name string) int64 {
	_, rest, found := bytes.Cut(profile, []byte("# "+name+" = "))
	if !found {
		return 0
	}
	digits, _, _ := bytes.Cut(rest, []byte("\n"))
	digits, _, _ = bytes.Cut(digits, []byte(" "))
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// sizeOf is how large all files of a directory are.
func sizeOf(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // It went while it was looked at.
		}
		if info, err := entry.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

const (
	// smallPause is between one service of the small user and the next, and smallLimit how long one may take.
	smallPause = 100 * time.Millisecond
	smallLimit = time.Minute
)

// smallUser creates one service with one task after the other, through one manager after the other, and measures how
// long each takes until its task runs. What it returns ends that.
func (x *scaling) smallUser(ctx context.Context) (stop func() (took []report.Ms, failures int)) {
	ctx, cancel := context.WithCancel(ctx)
	var took []report.Ms
	failures := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			// What was begun is brought to its end: a request that is cut off may be carried out after the removal.
			runs, err := x.smallService(context.WithoutCancel(ctx), i, fmt.Sprintf("small-%d", began.UnixNano()))
			if err == nil {
				took = append(took, report.Since(began, runs))
			} else {
				failures++
			}
			if sleep(ctx, smallPause) != nil {
				return
			}
		}
	}()
	return func() ([]report.Ms, int) {
		cancel()
		<-done
		return took, failures
	}
}

// smallService creates a service and waits until it runs; it is removed afterwards. Who asks turns to another manager
// when one doesn't answer.
func (x *scaling) smallService(ctx context.Context, turn int, name string) (runs time.Time, err error) {
	through := func() *node {
		for range x.p.nodes {
			turn++
			if n := x.p.nodes[turn%len(x.p.nodes)]; n.running() {
				return n
			}
		}
		return x.p.nodes[0]
	}
	err = until(ctx, smallLimit, "a small service", func(ctx context.Context) error {
		_, err := through().api.ServiceCreate(ctx, benchSpec(name, 1), swarm.ServiceCreateOptions{})
		if errdefs.IsConflict(err) {
			return nil // An attempt whose outcome was unknown had made it.
		}
		return err
	})
	if err == nil {
		asked := through()
		err = until(ctx, smallLimit, "its task", func(ctx context.Context) error {
			tasks, err := timer{api: asked.api}.tasks(ctx, name)
			if err != nil {
				asked = through()
				return err
			}
			for _, task := range tasks {
				if task.Status.State == swarm.TaskStateRunning {
					return nil
				}
			}
			return errors.New("it doesn't run")
		})
	}
	runs = time.Now()
	return runs, errors.Join(err, until(ctx, smallLimit, "it to be removed", func(ctx context.Context) error {
		if err := through().api.ServiceRemove(ctx, name); !errdefs.IsNotFound(err) {
			return err
		}
		return nil
	}))
}

// killLeader kills the leader, and measures how long it takes until a write is accepted that was begun after that. Writes
// are begun without waiting for those before: a client that waits would hide for how long nobody else's was accepted.
func (x *scaling) killLeader(ctx context.Context, leader *node) (report.Ms, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	x.meter.kill(leader)
	accepted := make(chan time.Duration, 1)
	var writes sync.WaitGroup
	defer writes.Wait()
	defer cancel()
	for i := 0; ; i++ {
		n := x.p.nodes[i%len(x.p.nodes)]
		if n.running() {
			writes.Go(func() {
				spec := swarm.ConfigSpec{Annotations: swarm.Annotations{Name: fmt.Sprintf("after-%d-%d", began.UnixNano(), i)}, Data: []byte("x")}
				if _, err := n.api.ConfigCreate(ctx, spec); err == nil {
					select {
					case accepted <- time.Since(began):
					default:
					}
				}
			})
		}
		select {
		case took := <-accepted:
			return report.Ms(took) / report.Ms(time.Millisecond), nil
		case <-time.After(look):
		case <-ctx.Done():
			return 0, fmt.Errorf("wait for a write to be accepted: %w", ctx.Err())
		}
	}
}

// revive starts a killed manager again and waits until the others reach it.
func (x *scaling) revive(ctx context.Context, n *node) error {
	if err := n.start(ctx); err != nil {
		return err
	}
	return until(ctx, 5*time.Minute, n.name+" to be back", func(ctx context.Context) error {
		for _, other := range x.p.nodes {
			if other == n {
				continue
			}
			status, err := clusterStatus(ctx, other.api)
			if err != nil {
				return err
			}
			for _, m := range status.Managers {
				if !m.Reachable {
					return fmt.Errorf("%s doesn't reach %s", other.name, m.Hostname)
				}
			}
			return nil
		}
		return nil
	})
}
